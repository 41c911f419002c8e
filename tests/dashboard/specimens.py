"""One small model of every kind that the pages tell apart, in folders, as a person would open them."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lens
from lens.tokens import Tokenizer
from tests import mixers, zoo
from tests.parity import ours

TEXT, OTHER = "w5 w6 w7 w5 w8", "w5 w9 w7 w5 w8"


@dataclass(frozen=True)
class Specimen:
    """A model of `tests/zoo.py` or `tests/mixers.py`, and what the dashboard takes it for; `end`: its texts end with
    w1; `mask`: w3 stands for what is masked."""

    kind: str
    family: str
    name: str
    texts: bool = True
    end: bool = False
    mask: bool = False


SPECIMENS = {
    "encoder": Specimen("reader", "bert", "base"),
    "masked": Specimen("reader", "bert", "masked", mask=True),
    "clip": Specimen("reader", "clip", "both", end=True),
    "seq2seq": Specimen("encoder–decoder", "t5", "plain", end=True),
    "vision": Specimen("vision", "vit", "base", texts=False),
    "mixer": Specimen("mixer", "mamba", "tied"),
    "attention without heads": Specimen("mixer", "mixers", mixers.NAMES[0][0] + "-" + mixers.NAMES[0][1]),
    "sounds": Specimen("other", "whisper", "plain", texts=False),
    "windows": Specimen("other", "swin", "padded", texts=False),
}


def model(specimen: Specimen) -> Any:
    """The model, with a tokenizer of words w0, w1, …"""
    made = copy(ours(specimen.family, specimen.name))  # which other tests share
    if not specimen.texts:
        return made
    words = [f"w{i}" for i in range(made.cfg.embed.d_vocab)]
    roles: dict[str, Any] = {"eos": "w1"} if specimen.end else {}
    base = Tokenizer.from_words(words, pad="w2", **roles)
    more: dict[str, Any] = {"mask": "w3"} if specimen.mask else {}
    made.tokenizer = Tokenizer(base.backend, pad="w2", add_eos=specimen.end, **roles, **more)
    return made


def saved(specimen: Specimen, folder: Path) -> str:
    """The folder of a specimen, made once."""
    if not folder.exists():
        lens.save(model(specimen), folder)
    return str(folder)


assert zoo.D_VOCAB > 10
