"""How a model knows where tokens are, other than by an embedding: rotated heads, or positions in the scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class RotaryScaling:
    """How rotary frequencies are stretched for long contexts.

    `linear` divides all frequencies by `factor`; `llama3` only the low ones, with a smooth ramp
    between the wavelengths `original_n_ctx / low_freq_factor` and `original_n_ctx / high_freq_factor`;
    `yarn` (arXiv 2309.00071) ramps between `beta_slow` and `beta_fast` rotations and multiplies
    the tables by `attention_factor`.
    """

    kind: Literal["linear", "llama3", "yarn"]
    factor: float
    original_n_ctx: int | None = None
    low_freq_factor: float | None = None
    high_freq_factor: float | None = None
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float = 1.0
    truncate: bool = True


@dataclass(frozen=True, kw_only=True)
class Rotary:
    """Rotary position embedding (RoFormer, arXiv 2104.09864) on the first `dim` entries of a head.

    `interleaved` pairs neighbours (GPT-J); otherwise entry `i` is paired with `i + dim / 2` (NeoX, Llama).
    """

    dim: int
    theta: float = 10_000.0
    interleaved: bool = False
    scaling: RotaryScaling | None = None


@dataclass(frozen=True, kw_only=True)
class Buckets:
    """A bias on scores per head and bucket of distances (T5, arXiv 1910.10683).

    Of `n` buckets the larger ones widen up to `max_distance`, which all that lies beyond shares.
    """

    n: int
    max_distance: int
    kind: Literal["buckets"] = "buckets"


@dataclass(frozen=True, kw_only=True)
class Disentangled:
    """Scores of content on positions and of positions on content (DeBERTa, arXiv 2006.03654).

    Distances up to `span` have a vector each, normalised if `norm`; from `log_from` on (None: never) steps
    grow up to `max_distance`. `terms` names the projections of these vectors: as `k`eys for queries, as
    `q`ueries for keys. `shared` projections are those of the content.
    """

    span: int
    max_distance: int
    log_from: int | None = None
    terms: frozenset[Literal["q", "k"]] = frozenset({"q", "k"})
    shared: bool = False
    norm: bool = False
    kind: Literal["disentangled"] = "disentangled"
