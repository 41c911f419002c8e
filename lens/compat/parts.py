"""Parts of a drop-in model that old code calls by themselves: `block.mlp(block.ln2(x))`, `block.attn(x, x, x)`.

Within a run, a part is the core's. By itself it is given activations alone, makes the masks and positions that it
needs, and passes through the hooks that act on its model.

Letters: b batch, p position, k key position, h head, g key/value head, d d_model.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lens.attention import Attention
from lens.block import Block
from lens.classifier import Classifier, Pooler
from lens.compat.ends import Alone, ClassHead, MaskedHead, PooledHead, PositionEmbed, TokenEmbed, TokenUnembed
from lens.compat.factored_matrix import FactoredMatrix
from lens.compat.hook_points import Board, alone
from lens.compat.stored import StoredPart, as_weights
from lens.embed import Embed
from lens.encoded import Encoded
from lens.experts import MixtureOfExperts
from lens.frame import Frame
from lens.mlp import MLP
from lens.norm import Norm
from lens.unembed import Transform, Unembed


@as_weights
class HookedNorm(Alone, StoredPart, Norm):
    """A norm: `model.ln_final(resid)`."""


@as_weights
class HookedMLP(Alone, StoredPart, MLP):
    """A feed-forward network: `block.mlp(block.ln2(resid_mid))`."""

    act_fn = property(lambda self: self.act)
    d_mlp = property(lambda self: self.up.out_features)


class HookedExperts(Alone, StoredPart, MixtureOfExperts):  # type: ignore[override]
    """A mixture of experts in a feed-forward network's place."""


@as_weights
class HookedAttention(StoredPart, Attention):
    """Attention: `block.attn(x, x, x)` of normalised streams [b, p, d], or of one per head [b, p, h, d]."""

    board: Board
    QK = property(lambda self: FactoredMatrix(self.W_Q, self.by_query_head(self.W_K).mT))  # [h, d, d]
    OV = property(lambda self: FactoredMatrix(self.by_query_head(self.W_V), self.W_O))  # [h, d, d]
    attn_scale = property(lambda self: 1 / self.scale)
    layer_id = property(lambda self: self.layer)

    def by_query_head(self, x: Tensor) -> Tensor:
        """What key–value heads have [g, …], for each query head [h, …]."""
        return x.repeat_interleave(self.cfg.n_heads // self.cfg.n_kv_heads, 0)

    def forward(self, *inputs: Any, **options: Any) -> Tensor:
        """What attention adds to the stream, [b, p, d].

        By itself it takes `query_input`, `key_input`, `value_input`, and `attention_mask` [b, k] (1 where a token is
        real) or `additive_attention_mask` (0 there, -inf elsewhere). Biases of positions are its own.

        Raises:
            ValueError: an input is missing, or an option has no meaning here.
        """
        if len(inputs) > 1 and isinstance(inputs[1], Frame):
            return super().forward(*inputs, **options)
        q, k, v = self._streams(inputs, options)
        valid = _valid(options.pop("attention_mask", None), options.pop("additive_attention_mask", None))
        _refuse("attention", options)
        with alone(self.board) as taps:
            if not (self.cfg.cross and ".cross_attn." in self.hook_q):
                frame = Frame(q.shape[1], valid=valid, causal=self.cfg.causal, device=q.device, dtype=q.dtype)
                return super().forward(q if q is k is v else (q, k, v), frame, taps)
            if k is not v:
                raise ValueError("cross-attention reads keys and values of one stream: give it twice")
            return self.across(q, Encoded(k, valid), taps)

    @staticmethod
    def _streams(inputs: tuple[Any, ...], options: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
        names = ("query_input", "key_input", "value_input")
        given = dict(zip((*names, "past_kv_cache_entry"), inputs, strict=False))
        options |= {name: x for name, x in given.items() if name not in names}
        missing = [name for name in names if given.get(name) is None and options.get(name) is None]
        if missing:
            raise ValueError(f"attention by itself needs {', '.join(missing)}: attn(x, x, x)")
        q, k, v = (options.pop(name, None) if given.get(name) is None else given[name] for name in names)
        return q, k, v


class HookedBlock(StoredPart, Block):
    """A block: `model.blocks[0](resid_pre)`."""

    board: Board

    def forward(self, resid_pre: Tensor, second: Any = None, *rest: Any, **options: Any) -> Tensor:
        """What the next block reads, [b, p, d], of a stream [b, p, d].

        By itself it takes `attention_mask` or `additive_attention_mask`, as attention does, and in a decoder
        `encoder_hidden_states` [b, k, d] with `encoder_additive_attention_mask`.

        Raises:
            ValueError: an option has no meaning here, or a decoder has nothing to look at.
        """
        if isinstance(second, Frame):
            return super().forward(resid_pre, second, *rest, **options)
        additive = options.pop("additive_attention_mask", None)
        if additive is None and isinstance(second, Tensor):  # its place in blocks of encoders
            additive = second
        valid = _valid(options.pop("attention_mask", None), additive)
        source = options.pop("encoder_hidden_states", None)
        of_source = _valid(None, options.pop("encoder_additive_attention_mask", None))
        _refuse("a block", {**dict(enumerate(rest)), **options})
        if self.cross_attn is not None and source is None:
            raise ValueError("a decoder's block by itself needs encoder_hidden_states")
        x = resid_pre
        frame = Frame(x.shape[1], valid=valid, causal=self.cfg.causal, device=x.device, dtype=x.dtype)
        frame.encoded = None if source is None else Encoded(source, of_source)
        with alone(self.board) as taps:
            return super().forward(x, frame, taps)


PARTS: dict[type[nn.Module], type[nn.Module]] = {
    Norm: HookedNorm,
    MLP: HookedMLP,
    MixtureOfExperts: HookedExperts,
    Attention: HookedAttention,
    Block: HookedBlock,
    Embed: TokenEmbed,
    Unembed: TokenUnembed,
    Transform: MaskedHead,
    Pooler: PooledHead,
    Classifier: ClassHead,
}


BY_NAME: dict[str, type] = {
    "Attention": HookedAttention, "GroupedQueryAttention": HookedAttention, "T5Attention": HookedAttention,
    "MLP": HookedMLP, "GatedMLP": HookedMLP, "MoE": HookedExperts, "TransformerBlock": HookedBlock,
    "BertBlock": HookedBlock, "T5Block": HookedBlock, "LayerNorm": HookedNorm, "LayerNormPre": HookedNorm,
    "RMSNorm": HookedNorm, "RMSNormPre": HookedNorm, "Embed": TokenEmbed, "BertEmbed": TokenEmbed,
    "Unembed": TokenUnembed, "PosEmbed": PositionEmbed, "BertMLMHead": MaskedHead, "BertNSPHead": ClassHead,
    "BertPooler": PooledHead,
}  # fmt: skip
"""TransformerLens's names of parts, for `isinstance`: they are built by the models, from other arguments."""


def alone_as(part: nn.Module, board: Board) -> None:
    """Let a part of the core be called by itself as well, with the hooks on this board."""
    if type(part) is Embed and not part.cfg.of_tokens:
        return
    made = PARTS.get(type(part))
    if made is not None:
        part.__class__ = made  # type: ignore[assignment]
        vars(part)["board"] = board


def _valid(mask: Tensor | None, additive: Tensor | None) -> Tensor | None:
    """True where a token is real, [b, k]; None where all are."""
    if additive is not None:
        mask = (additive == 0).reshape(additive.shape[0], -1)
    valid = None if mask is None else mask.to(torch.bool)
    return None if valid is None or bool(valid.all()) else valid


def _refuse(what: str, options: dict[Any, Any]) -> None:
    named = {"past_kv_cache_entry": "give the model a past_kv_cache", "position_bias": "it has its own"}
    for name, value in options.items():
        if value is not None:
            raise ValueError(f"{what} by itself takes no {name}: {named.get(name, 'run the model')}")
