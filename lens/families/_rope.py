"""Rotary positions from a config: `rope_parameters`, or the older `rope_theta` and `rope_scaling`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lens.config import Rotary, RotaryScaling
from lens.fields import Fields
from lens.nearest import unknown

KINDS = ("default", "linear", "llama3", "yarn")


def rotary(
    f: Fields, d_head: int, n_ctx: int, *, theta: float = 10_000.0, partial: float | None = None
) -> Rotary:
    """The rotary positions that all layers share.

    `theta` and `partial` are the family's defaults; with `partial=None` whole heads are always rotated.

    Raises:
        ValueError: a kind of scaling, or a field of it, is not supported.
    """
    given = f.get("rope_scaling", default=None) or f.get("rope_parameters", default=None) or {}
    parameters = dict(given)
    base = parameters.pop("rope_theta", None) or f.get("rope_theta", "rotary_emb_base", default=theta)
    if partial is None:
        f.only("partial_rotary_factor", 1.0)
        fraction = 1.0
    else:
        outer = f.get("partial_rotary_factor", "rotary_pct", default=partial)
        fraction = parameters.pop("partial_rotary_factor", None) or outer
    return spec(f, parameters, d_head=d_head, n_ctx=n_ctx, theta=float(base), fraction=float(fraction))


def spec(
    f: Fields, parameters: Mapping[str, Any], *, d_head: int, n_ctx: int, theta: float, fraction: float = 1.0
) -> Rotary:
    """One set of rope parameters as a `Rotary`; see `rotary`."""
    dim = int(d_head * fraction)
    return Rotary(dim=dim, theta=theta, scaling=scaling(f, parameters, n_ctx))


def scaling(f: Fields, parameters: Mapping[str, Any], n_ctx: int) -> RotaryScaling | None:
    """How frequencies are stretched; None where they are not.

    Raises:
        ValueError: a kind or a field is not supported; the message names it.
    """
    p = {name: value for name, value in parameters.items() if value is not None}
    older = p.pop("type", "default")
    kind = p.pop("rope_type", older)
    if kind not in KINDS:
        raise ValueError(f"{f.family} config: {unknown('rope type', str(kind), KINDS)}")
    try:
        found = _take(p, kind, n_ctx)
    except KeyError as error:
        raise ValueError(f"{f.family} config: rope parameters of type {kind!r} have no {error}") from None
    if p:
        pairs = ", ".join(f"{name}={value!r}" for name, value in p.items())
        raise ValueError(
            f"the {f.family} family does not handle these rope parameters of type {kind!r}: {pairs}"
        )
    return found


def _take(p: dict[str, Any], kind: str, n_ctx: int) -> RotaryScaling | None:
    """Remove from `p` what this kind reads."""
    if kind == "default":
        return None
    if kind == "linear":
        return RotaryScaling(kind="linear", factor=float(p.pop("factor")))
    original = p.pop("original_max_position_embeddings", n_ctx)
    if kind == "llama3":
        return RotaryScaling(
            kind="llama3",
            factor=float(p.pop("factor")),
            original_n_ctx=original,
            low_freq_factor=float(p.pop("low_freq_factor")),
            high_freq_factor=float(p.pop("high_freq_factor")),
        )
    factor = float(p.pop("factor", n_ctx / original))
    return RotaryScaling(
        kind="yarn",
        factor=factor,
        original_n_ctx=original,
        beta_fast=float(p.pop("beta_fast", 32.0)),
        beta_slow=float(p.pop("beta_slow", 1.0)),
        truncate=p.pop("truncate", True),
        attention_factor=_yarn_gain(p, factor),
    )


def _yarn_gain(p: dict[str, Any], factor: float) -> float:
    """What the tables are multiplied by (YaRN, eq. 22), given or from the factor."""
    given = p.pop("attention_factor", None)
    top, bottom = p.pop("mscale", None), p.pop("mscale_all_dim", None)
    if given is not None:
        return float(given)

    def gain(weight: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0

    return gain(top) / gain(bottom) if top and bottom else gain(1.0)
