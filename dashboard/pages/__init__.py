"""One file per page: it defines `PAGE` and, run as a script by the router, shows itself."""

from __future__ import annotations

import sys

from dashboard.page import Page
from lens.registry import collect


def found() -> dict[str, Page]:
    """All pages by file name, in the order of the menu."""
    pages = collect(sys.modules[__name__], "PAGE", Page)
    return dict(sorted(pages.items(), key=lambda item: item[1].order))
