"""Many patched runs in one climb through the layers.

A patch at some depth changes nothing below it. So patched residual streams join the batch where they begin to
differ from the clean one, and each is run only from there on, and only at positions from `skip` on; earlier
positions contribute the clean run's keys and values.

Letters: n pair, c patches so far, t positions climbed, d d_model.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float
from torch import Tensor

if TYPE_CHECKING:
    from circuits.suffix import Suffix
    from lens.kv import KeyValues

Stage = Literal["pre", "mid", "post"]
"""Where in a block a stream joins: as it enters, between attention and MLP, or before a post-norm at its end."""


@dataclass(frozen=True)
class Join:
    """A patched stream, the place where it joins, and the key under which its result is returned.

    `stream()` makes it, [n, t, d], only when its turn has come.
    """

    layer: int
    stage: Stage
    key: tuple[int, ...]
    stream: Callable[[], Float[Tensor, "n t d"]]


def climb(
    suffix: Suffix, joins: Iterable[Join], past: KeyValues | None, skip: int = 0
) -> tuple[list[tuple[int, ...]], Float[Tensor, "cn t d"]]:
    """The last residual streams of all patched runs, with their keys, in the order in which they joined.

    `past` holds the clean run's keys and values of all positions before those that are climbed.
    """
    model, keys = suffix.model, list[tuple[int, ...]]()
    waiting: dict[tuple[int, str], list[Join]] = defaultdict(list)
    for join in joins:
        waiting[join.layer, join.stage].append(join)
    x: Tensor | None = None

    def meet(layer: int, stage: Stage, x: Tensor | None) -> Tensor | None:
        new = waiting.pop((layer, stage), [])
        keys.extend(join.key for join in new)
        streams = [join.stream() for join in new]
        if x is not None:
            streams = [x, *streams]
        return torch.cat(streams) if len(streams) > 1 else streams[0] if streams else None

    for layer in range(model.cfg.n_layers):
        block = model.block(layer)
        x = meet(layer, "pre", x)
        if x is not None:
            x = block.first(x, suffix.frame(len(x) // len(suffix), skip), past=past)
        if not block.one_sum:
            x = meet(layer, "mid", x)
            x = None if x is None else block.second(x)
        x = meet(layer, "post", x)
        x = None if x is None else block.finish(x)
    assert not waiting, f"no block has the stages {sorted(waiting)}"
    assert x is not None
    return keys, x
