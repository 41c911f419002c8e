"""Mixers: what mixes positions where a block has no softmax attention. A file in `lens/mixers/` defines one `MIXER`.

`StackConfig.mixer` names it by its `MixerConfig`; the block builds it, the sites of the model are its `kinds`, and its
parameters have the names and shapes that its module gives them. A block around it stays what it is: the same
norms, the same stream, and `hook_attn_out` is what the mixer adds to the stream.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import torch
from torch import Generator, Tensor, nn

from lens.config import MixerConfig, ModelConfig, StackConfig
from lens.registry import Registry
from lens.vocabulary import Kind

Make = Callable[[str, StackConfig, int], nn.Module]


@dataclass(frozen=True)
class Mixer:
    """What a mixer's file states.

    `name` is the file's name and the `kind` of its `config`. `module(site, cfg, layer)` makes the module, which is
    called as `Attention` is: `(inputs, frame, taps, past) -> [b, p, d]`. It stands in the block as `path`: `attn`
    where it has heads with queries, keys, values and `hook_z`, else `mixer`. `kinds` are its sites in the order in
    which they fire, named from the block on (`mixer.hook_x`). `words(cfg)` describes it in one line;
    `sizes(cfg)` are those of axes that only its own kinds have, where layers differ.

    A mixer that comes with a feed-forward network of its own (RWKV's, which looks at the position before) gives
    `mlp`, called `(x, frame, taps, past)`, and `mlp_kinds`. What a run leaves for the next one that continues it,
    modules keep in `past` (`KeyValues.keep` and `recall`, or `join` for keys and values).

    `initial(cfg, layer, generator)` gives, by their names in the module, the weights that do not begin as others do
    (`lens.train.fresh`). `common(cfg)` names those that all layers with an equal configuration share.
    """

    name: str
    config: type[MixerConfig]
    module: Make
    kinds: tuple[Kind, ...]
    words: Callable[[StackConfig], str]
    path: str = "mixer"
    sizes: Callable[[StackConfig], dict[str, int]] | None = None
    mlp: Make | None = None
    mlp_kinds: tuple[Kind, ...] = ()
    initial: Callable[[StackConfig, int, Generator], Mapping[str, Tensor]] | None = None
    common: Callable[[StackConfig], tuple[str, ...]] | None = None


MIXERS = Registry("lens.mixers", "MIXER", Mixer, "mixer")


def mixer_at(c: StackConfig) -> Mixer | None:
    """The mixer of one block (`StackConfig.at`); None: attention."""
    assert not isinstance(c.mixer, tuple)
    return None if c.mixer is None else MIXERS.get(c.mixer.kind)


OF_ATTENTION = {
    "rotary": "rotary positions",
    "windows": "windows or sparse patterns",
    "relative": "positions in the scores",
    "qk_norm": "norms of queries and keys",
    "attn_softcap": "scores that are capped",
    "global_tokens": "global tokens",
}
"""What a stack's configuration may say of its attention, and a stack without attention cannot mean."""


def check_fields(c: StackConfig) -> None:
    """Raise where a stack of mixers alone is told what only attention can do.

    Raises:
        ValueError: it is; the message names the field.
    """
    if None in c.mixers:
        return
    for field, words in OF_ATTENTION.items():
        if getattr(c, field) is not None:
            kinds = " and ".join(sorted({mixer.kind for mixer in c.mixers if mixer is not None}))
            raise ValueError(f"a stack of {kinds} has no {words}: leave {field} out of its configuration")


def common_of(c: StackConfig) -> dict[str, str]:
    """Parameters of a stack's mixers that are those of an earlier layer, by their names in the stack."""
    first, found = dict[MixerConfig, int](), dict[str, str]()
    for layer, config in enumerate(c.mixers):
        here = c.at(layer)
        mixer = mixer_at(here)
        if mixer is None or config is None or mixer.common is None:
            continue
        owner = first.setdefault(config, layer)
        if owner != layer:
            path = f"{mixer.path}.{{}}"
            names = (path.format(name) for name in mixer.common(here))
            found |= {f"blocks.{layer}.{name}": f"blocks.{owner}.{name}" for name in names}
    return found


@cache
def shapes(make: Make, c: StackConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a module's parameters, from a copy of it that has no values."""
    with torch.device("meta"):
        return {name: tuple(x.shape) for name, x in make("", c, 0).state_dict().items()}


def check_attention(cfg: ModelConfig, but: str) -> None:
    """Raise unless every block mixes positions by attention.

    Raises:
        ValueError: one does not; `but` says what is missing then.
    """
    kinds = sorted({mixer.kind for mixer in cfg.stack.mixers if mixer is not None})
    if kinds:
        raise ValueError(f"{cfg.name} mixes positions by {' and '.join(kinds)}, not by attention: {but}")
