"""Text that is shown as it is.

Streamlit reads messages as Markdown, which can link and fetch pictures. Addresses, prompts and run folders
may come from others and must not do that.
"""

from __future__ import annotations

import re

LONGEST = 400
LINK = re.compile(r"http(?=s?:)|www(?=\.)|(?<=\w)@", re.IGNORECASE)
JOINER = "\u2060"
"""What begins a link even where it is escaped; nothing is seen of the joiner that is put behind it."""
MARKUP = re.compile(r"([\\`*_{}\[\]()#+\-.!|<>~$:&])")


def plain(text: str) -> str:
    """`text`, shortened if it is very long, such that Markdown shows just that."""
    if len(text) > LONGEST:
        text = text[:LONGEST] + "…"
    return MARKUP.sub(r"\\\1", LINK.sub(rf"\g<0>{JOINER}", text))
