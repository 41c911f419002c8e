"""Weights of encoders and of encoder–decoders in TransformerLens's names and shapes, `HookedEncoder`'s and
`HookedEncoderDecoder`'s: `embed.embed.W_E` [v, d], `mlm_head.W` [d, d], `decoder.0.cross_attn.W_Q` [h, d, e].

There, the norm in front of cross-attention is a decoder's `ln2`, and that of its MLP `ln3`.

Letters: d d_model, e d_head, h head, v vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator

from lens.compat.entries import Entry, of_attention, of_block, of_norm, turned
from lens.config import Buckets, ModelConfig, StackConfig


def reads(cfg: ModelConfig) -> bool:
    """Is this a model of the shape of BERT, or of T5?"""
    e, c = cfg.embed, cfg.stack
    plain = e.of_tokens and e.d_embed == c.d_model and c.attends and c.shared is None and cfg.vision is None
    plain = plain and c.stages is None and c.global_tokens is None and c.experts is None and c.streams == 1
    if cfg.source is None:
        post = "add" in c.norm_placement and c.relative is None
        return plain and post and e.n_types > 0 and e.norm_eps is not None and e.n_positions is not None
    across = isinstance(c.relative, Buckets) and cfg.source.shared and cfg.source.stack.experts is None
    return plain and across and "in" in c.norm_placement


def entries(cfg: ModelConfig) -> Iterator[Entry]:
    """All weights, in TransformerLens's order."""
    yield from (_of_encoder(cfg) if cfg.source is None else _of_encoder_decoder(cfg))


def _of_encoder(cfg: ModelConfig) -> Iterator[Entry]:
    yield Entry("embed.embed.W_E", "embed.tokens.weight")
    yield Entry("embed.pos_embed.W_pos", "embed.positions.weight")
    yield Entry("embed.token_type_embed.W_token_type", "embed.types.weight")
    yield Entry("embed.ln.w", "embed.ln.weight")
    yield Entry("embed.ln.b", "embed.ln.bias")
    for layer in range(cfg.n_layers):
        yield from of_block(cfg.stack, f"blocks.{layer}", f"stack.blocks.{layer}")
    if cfg.unembed is not None:
        if cfg.unembed.transform:
            yield from _map("mlm_head", "unembed.transform.dense")
            yield Entry("mlm_head.ln.w", "unembed.transform.ln.weight")
            yield Entry("mlm_head.ln.b", "unembed.transform.ln.bias")
        yield Entry("unembed.W_U", "unembed.linear.weight", turned, turned)
        yield Entry("unembed.b_U", "unembed.linear.bias")
    if cfg.classifier is not None:
        name = "nsp_head" if cfg.classifier.task == "follows" else "classifier"
        yield from _map(name, "classifier.linear")
    if cfg.pooler is not None and cfg.pooler.layer:
        yield from _map("pooler", "pooler.dense")


def _of_encoder_decoder(cfg: ModelConfig) -> Iterator[Entry]:
    assert cfg.source is not None
    yield Entry("embed.W_E", "embed.tokens.weight")
    yield from _stack(cfg.source.stack, "encoder", "encoder.stack")
    yield from _stack(cfg.stack, "decoder", "stack")
    yield Entry("unembed.W_U", "unembed.linear.weight", turned, turned)
    yield Entry("unembed.b_U", "unembed.linear.bias")


def _stack(c: StackConfig, there: str, here: str) -> Iterator[Entry]:
    yield Entry(f"{there}.0.attn.rel_pos_bias.weight", f"{here}.relative.table.weight")
    for layer in range(c.n_layers):
        yield from of_block(c, f"{there}.{layer}", f"{here}.blocks.{layer}")
        if c.cross:
            yield from of_norm(c, f"{there}.{layer}.ln2", f"{here}.blocks.{layer}.ln3")
            yield from of_attention(c, f"{there}.{layer}.cross_attn", f"{here}.blocks.{layer}.cross_attn")
    yield from of_norm(c, f"{there}_final_ln", f"{here}.ln_final")


def _map(theirs: str, ours: str) -> Iterator[Entry]:
    yield Entry(f"{theirs}.W", f"{ours}.weight", turned, turned)
    yield Entry(f"{theirs}.b", f"{ours}.bias")
