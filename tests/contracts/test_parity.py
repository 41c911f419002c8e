"""The numbers of every family against Hugging Face, and proof that the comparison notices bugs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from lens.config import Buckets, Disentangled, MixerConfig, ModelConfig
from lens.family import read
from lens.model import Transformer
from tests import zoo
from tests.parity import (
    CLOSE,
    EXACT,
    Seen,
    each_specimen,
    explicit,
    has_sdpa,
    inputs,
    ours,
    outputs,
    padding,
    prompts,
    relative_error,
    shown,
    sides,
    worst,
)


@pytest.mark.parametrize("side", ["none", "right", "left"])
@each_specimen
def test_agrees_with_hugging_face(family: str, name: str, side: str) -> None:
    """Logits, the residual stream around every block, patterns: attention explicit and fused."""
    hf, model = zoo.hugging_face(family, name), ours(family, name)
    if side not in sides(model):
        return
    for attention in ("eager", "sdpa") if has_sdpa(hf) else ("eager",):
        error = worst(model, hf, side, attention)
        assert error < CLOSE, attention
    given = inputs(model, prompts(), padding(side))
    stepwise, fused = shown(model, given, "eager"), shown(model, given, "sdpa")
    stepwise = Seen({k: v for k, v in stepwise.tensors.items() if k in fused.tensors})
    assert fused.error(stepwise, given.mask, given.source) < CLOSE


@each_specimen
def test_agrees_in_double_precision(family: str, name: str) -> None:
    """To 1e-10 where Hugging Face itself computes in float64; its RMSNorm and eager softmax never do.

    Its eager attention in float64 is NaN where rows are padded at the left.
    """
    hf, model = zoo.hugging_face(family, name, torch.float64), ours(family, name, torch.float64)
    assert model.dtype == torch.float64
    sdpa = has_sdpa(hf)
    for side in sides(model) if sdpa else ("none",):
        error = worst(model, hf, side, "sdpa" if sdpa else "eager")
        assert error < (EXACT if sdpa and model.cfg.stack.norm == "layer" else CLOSE), side
    given = inputs(model, prompts())
    fused, stepwise = model(given), model.run_with_cache(given, explicit(model))[0]
    assert relative_error(fused, stepwise) < EXACT


@each_specimen
def test_a_padded_row_is_the_same_prompt_alone(family: str, name: str) -> None:
    model, ids = ours(family, name, torch.float64), prompts()
    for side in ("right", "left") if model.cfg.embed.patches is None else ():
        real = padding(side)
        assert real is not None
        given = inputs(model, ids, real)
        fused, stepwise = (outputs(model, given, wanted) for wanted in ([], explicit(model)))
        for row, keep in enumerate(real):
            for end, alone in outputs(model, inputs(model, ids, real, row)).items():
                by_position = alone.ndim == 3 and not model.cfg.embed.empty
                for together in (fused[end], stepwise[end]):
                    found = together[row, keep] if by_position else together[row]
                    assert relative_error(found, alone[0]) < EXACT, end


BUGS: dict[
    str, tuple[str, str, Callable[[ModelConfig, dict[str, Tensor]], tuple[ModelConfig, dict[str, Tensor]]]]
] = {}


def bug(family: str, name: str) -> Callable[[Any], Any]:
    def add(plant: Any) -> Any:
        BUGS[plant.__name__] = (family, name, plant)
        return plant

    return add


def _stack(cfg: ModelConfig, **fields: Any) -> ModelConfig:
    return replace(cfg, stack=replace(cfg.stack, **fields))


def _swapped(state: dict[str, Tensor], a: str, b: str) -> dict[str, Tensor]:
    """Exchange two parts of every name."""
    exchange = {n: n.replace(a, "\0").replace(b, a).replace("\0", b) for n in state}
    return {exchange[n]: x for n, x in state.items()}


@bug("gpt2", "tied")
def norms_swapped(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    return cfg, _swapped(state, ".ln1.", ".ln2.")


@bug("llama", "untied")
def scale_forgotten(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    return _stack(cfg, attn_scale=1.0), state


@bug("mistral", "windowed")
def window_off_by_one(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    return _stack(cfg, windows=tuple(w and w + 1 for w in cfg.stack.windows or ())), state


@bug("gpt_neox", "parallel")
def rotary_interleaved(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    return _stack(
        cfg, rotary=tuple(r and replace(r, interleaved=True) for r in cfg.stack.rotary or ())
    ), state


@bug("gptj", "partial")
def rotary_of_whole_heads(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    return _stack(cfg, rotary=tuple(r and replace(r, dim=cfg.d_head) for r in cfg.stack.rotary or ())), state


@bug("llama", "yarn")
def gain_forgotten(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    def plain(r: Any) -> Any:
        return replace(r, scaling=replace(r.scaling, attention_factor=1.0))

    return _stack(cfg, rotary=tuple(map(plain, cfg.stack.rotary or ()))), state


@bug("gemma3", "local_and_global")
def one_rotary_for_all_layers(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    assert cfg.stack.rotary
    return _stack(cfg, rotary=(cfg.stack.rotary[0],) * cfg.n_layers), state


@bug("gemma2", "capped")
def cap_forgotten(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    return _stack(cfg, attn_softcap=None), state


@bug("gemma", "tied")
def embedding_unscaled(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    return replace(cfg, embed=replace(cfg.embed, scale=1.0)), state


@bug("phi", "plain")
def activation_exact(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    return _stack(cfg, act_fn="gelu"), state


@bug("mixtral", "top2")
def gate_and_up_swapped(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    return cfg, _swapped(state, ".gate.", ".up.")


@bug("qwen2_moe", "sparse")
def weights_of_experts_not_rescaled(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    assert cfg.stack.experts is not None
    return _stack(cfg, experts=replace(cfg.stack.experts, normalize=False)), state


@bug("qwen2_moe", "everywhere")
def shared_expert_always_whole(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    return cfg, {n: x * (not n.endswith("shared_gate.weight")) for n, x in state.items()}


@bug("olmoe", "grouped")
def norms_of_queries_by_head(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    narrow = {n: x[: cfg.d_head] for n, x in state.items() if n.endswith(("q_norm.weight", "k_norm.weight"))}
    return _stack(cfg, qk_norm="head"), {**state, **narrow}


@bug("opt", "before")
def positions_off_by_one(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    embed = replace(cfg.embed, position_offset=1, n_positions=zoo.N_CTX + 1)
    return replace(cfg, embed=embed), state


@bug("qwen2", "full")
def value_bias_lost(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    return cfg, {n: x * (not n.endswith("attn.v.bias")) for n, x in state.items()}


@bug("bert", "masked")
def types_of_pairs_lost(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    state = {**state, "embed.types.weight": state["embed.types.weight"][:1].expand(2, -1)}
    return cfg, state


@bug("bert", "masked")
def causal_by_mistake(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    return _stack(cfg, causal=True), state


@bug("roberta", "masked")
def positions_from_zero(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    embed = replace(cfg.embed, position_offset=0, n_positions=zoo.N_CTX)
    return replace(cfg, embed=embed), state


@bug("albert", "pretraining")
def one_group_for_all_layers(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    return _stack(cfg, shared=(0,) * cfg.n_layers), state


@bug("distilbert", "masked")
def norms_of_the_ends_swapped(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    return cfg, _swapped(state, "unembed.transform.ln.", "embed.ln.")


@bug("bert", "pretraining")
def norms_in_front(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    return _stack(cfg, norm_placement=frozenset({"in"})), state


@bug("deberta_v2", "masked")
def positions_on_content_forgotten(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    assert isinstance(cfg.stack.relative, Disentangled)
    return _stack(cfg, relative=replace(cfg.stack.relative, terms=frozenset({"k"}))), state


@bug("deberta_v2", "masked")
def distances_never_grow_coarser(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    assert isinstance(cfg.stack.relative, Disentangled)
    return _stack(cfg, relative=replace(cfg.stack.relative, log_from=None)), state


@bug("deberta_v2", "own_projections")
def scale_of_content_alone(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    return _stack(cfg, attn_scale=None), state


@bug("longformer", "masked")
def window_of_one_more(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    return _stack(cfg, windows=tuple(w and w + 1 for w in cfg.stack.windows or ())), state


@bug("longformer", "masked")
def global_tokens_read_like_others(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    return cfg, {n: state[n.replace("_global", "")] if "_global" in n else x for n, x in state.items()}


@bug("big_bird", "masked")
def first_block_counted_once(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    mixer: Any = cfg.stack.mixer
    return _stack(cfg, mixer=replace(mixer, n_random=0)), state


@bug("big_bird", "pretraining")
def blocks_of_two(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    mixer: Any = cfg.stack.mixer
    return _stack(cfg, mixer=replace(mixer, block=2, n_random=0)), state


def _mixed(cfg: ModelConfig, kind: str, **fields: Any) -> ModelConfig:
    """With other fields in the mixers of one kind."""
    mixers = [replace(m, **fields) if m is not None and m.kind == kind else m for m in cfg.stack.mixers]
    return _stack(cfg, mixer=tuple(mixers))


@bug("perceiver", "wide")
def positions_read_on_from_their_queries(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    return _mixed(cfg, "perceiver", adds=True), state


def _latents(cfg: ModelConfig, **fields: Any) -> ModelConfig:
    assert cfg.source is not None
    return replace(cfg, source=replace(cfg.source, stack=replace(cfg.source.stack, **fields)))


@bug("perceiver", "twice")
def blocks_in_another_order(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    return _latents(cfg, shared=(0, 1, 2, 2, 1)), state


@bug("perceiver", "replacing")
def latents_kept(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    assert cfg.source is not None
    first: Any = cfg.source.stack.mixers[0]
    return _latents(cfg, mixer=(replace(first, adds=True), *cfg.source.stack.mixers[1:])), state


@bug("perceiver", "twice")
def bias_of_the_text_lost(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    bias = "encoder.stack.blocks.0.attn.ln_source.bias"
    return cfg, {**state, bias: state[bias] * 0}


@bug("reformer", "causal")
def other_hashes(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    return _mixed(cfg, "lsh", seed=4), state


@bug("reformer", "factors")
def factors_of_buckets_swapped(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    return _mixed(cfg, "lsh", n_buckets=(4, 2)), state


@bug("reformer", "masked")
def no_chunk_in_front(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    return _mixed(cfg, "local_chunks", before=0), state


@bug("reformer", "masked")
def streams_swapped_at_the_end(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    ends = ("stack.ln_final.weight", "stack.ln_final.bias", "unembed.linear.weight")
    return cfg, {n: x.roll(cfg.d_model // 2, -1) if n in ends else x for n, x in state.items()}


@bug("reformer", "base")
def positions_by_columns(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    axes = ("embed.positions.rows.weight", "embed.positions.columns.weight")
    flipped = {n: state[n].flip(0) for n in axes}
    return cfg, {**state, **flipped}


@bug("marian", "plain")
def cross_attention_reads_with_the_wrong_norm(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    decoder = {n: x for n, x in state.items() if n.startswith("stack.")}
    return cfg, {n: x for n, x in state.items() if n not in decoder} | _swapped(decoder, ".ln2.", ".ln3.")


@bug("marian", "plain")
def positions_interleaved(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    def mixed(x: Tensor) -> Tensor:
        return x.unflatten(-1, (2, -1)).mT.flatten(1)

    return cfg, {n: mixed(x) if n.endswith("positions.weight") else x for n, x in state.items()}


@bug("t5", "plain")
def cross_attention_scaled(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    return _stack(cfg, attn_scale=None), state


@bug("t5", "plain")
def buckets_reach_too_far(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    assert isinstance(cfg.stack.relative, Buckets)
    return _stack(cfg, relative=replace(cfg.stack.relative, max_distance=20)), state


@bug("t5", "plain")
def last_stream_unscaled(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    assert cfg.unembed is not None
    return replace(cfg, unembed=replace(cfg.unembed, scale=1.0)), state


@bug("bart", "plain")
def bias_of_logits_lost(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    return cfg, {n: x * (n != "unembed.linear.bias") for n, x in state.items()}


@bug("switch_transformers", "full")
def experts_without_end(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    assert cfg.stack.experts is not None
    return _stack(cfg, experts=replace(cfg.stack.experts, capacity=None)), state


@bug("vit", "classifier")
def patches_by_columns(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    linear = "embed.patches.linear.weight"
    return cfg, {**state, linear: state[linear].mT}


@bug("vit", "classifier")
def class_token_read_last(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    table = "embed.positions.weight"
    return cfg, {**state, table: state[table].roll(-1, 0)}


@bug("swin", "padded")
def windows_moved_one_too_far(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    mixers = [replace(m, shift=m.shift and m.shift + 1) for m in cfg.stack.mixers]  # type: ignore[call-arg]
    return _stack(cfg, mixer=tuple(mixers)), state


@bug("swin", "padded")
def merged_row_by_row(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    def reordered(x: Tensor) -> Tensor:
        return x.unflatten(-1, (2, 2, -1)).transpose(-2, -3).flatten(-3)

    return cfg, {n: reordered(x) if ".merge." in n else x for n, x in state.items()}


@bug("swin", "even")
def displacements_from_the_key(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    return cfg, {n: x.flip(0) if n.endswith("relative.weight") else x for n, x in state.items()}


@bug("swin", "even")
def norm_after_positions(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    return replace(cfg, embed=replace(cfg.embed, norm_first=False)), state


@bug("detr", "objects")
def object_queries_without_positions(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    return replace(cfg, embed=replace(cfg.embed, positions_in_attention=False)), state


@bug("detr", "objects")
def places_without_positions(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    assert cfg.source is not None
    embed = replace(cfg.source.embed, positions_in_attention=False)
    return replace(cfg, source=replace(cfg.source, embed=embed)), state


@bug("detr", "objects")
def rows_and_columns_exchanged(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    linear = "encoder.embed.features.linear.weight"
    stem = "encoder.embed.features.backbone.stem.conv.weight"
    return cfg, {**state, stem: state[stem].mT, linear: state[linear].mT}


@bug("detr", "learned")
def learned_rows_before_columns(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    return cfg, _swapped(state, ".rows.", ".columns.")


@bug("detr", "base")
def convolutions_halve_in_the_middle(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    assert cfg.source is not None and cfg.source.embed.features is not None
    features = cfg.source.embed.features
    late = replace(features, backbone=replace(features.backbone, stride_early=False))
    return replace(cfg, source=replace(cfg.source, embed=replace(cfg.source.embed, features=late))), state


@bug("detr", "objects")
def statistics_of_the_backbone_lost(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    return cfg, {n: torch.ones_like(x) if n.endswith("variance.weight") else x for n, x in state.items()}


@bug("detr", "objects")
def cross_attention_before_its_norm(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    decoder = {n: x for n, x in state.items() if n.startswith("stack.")}
    return cfg, {**state, **_swapped(decoder, ".ln1.", ".ln3.")}


@bug("whisper", "plain")
def convolution_backwards(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    kernel = "encoder.embed.mel.conv2.weight"
    return cfg, {**state, kernel: state[kernel].flip(-1)}


@bug("whisper", "plain")
def norms_after_the_sum(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    return _stack(cfg, norm_placement=frozenset({"add"})), state


@bug("whisper", "plain")
def encoder_sees_no_positions(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    return cfg, {n: x * (n != "encoder.embed.positions.weight") for n, x in state.items()}


@bug("clip", "texts")
def gelu_not_quick(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    return _stack(cfg, act_fn="gelu"), state


@bug("clip", "texts")
def texts_read_at_their_highest_token(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    assert cfg.pooler is not None
    return replace(cfg, pooler=replace(cfg.pooler, at="highest")), state


@bug("clip", "texts_alone")
def texts_read_at_their_first_token(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    assert cfg.pooler is not None
    return replace(cfg, pooler=replace(cfg.pooler, at="first")), state


@bug("clip", "both")
def texts_read_in_both_directions(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    return _stack(cfg, causal=False), state


@bug("clip", "images")
def norms_of_both_ends_swapped(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    return cfg, _swapped(state, "embed.ln.", "stack.ln_final.")


def _changed(state: dict[str, Tensor], end: str, change: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """Parameters whose names end so, changed."""
    assert any(n.endswith(end) for n in state)
    return {n: change(x) if n.endswith(end) else x for n, x in state.items()}


def _mixer(cfg: ModelConfig, **fields: Any) -> ModelConfig:
    assert isinstance(cfg.stack.mixer, MixerConfig)
    return _stack(cfg, mixer=replace(cfg.stack.mixer, **fields))


@bug("mamba", "tied")
def branches_swapped(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    return cfg, _changed(state, "mixer.in_proj.weight", lambda x: x.roll(len(x) // 2, 0))


@bug("mamba", "tied")
def state_space_convolved_backwards(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    return cfg, _changed(state, "conv.weight", lambda x: x.flip(-1))


@bug("mamba", "tied")
def convolution_one_token_late(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    return cfg, _changed(state, "conv.weight", lambda x: x.roll(-1, -1))


@bug("mamba", "tied")
def reads_where_it_should_write(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    def exchanged(x: Tensor) -> Tensor:
        dt, b, c = x.split([2, 5, 5])
        return torch.cat([dt, c, b])

    return cfg, _changed(state, "x_proj.weight", exchanged)


@bug("mamba", "biased")
def skip_forgotten(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    return cfg, _changed(state, "mixer.D.weight", torch.zeros_like)


@bug("jamba", "experts")
def gain_of_steps_forgotten(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    return cfg, _changed(state, "dt_norm.weight", torch.ones_like)


@bug("jamba", "experts")
def expert_weights_rescaled(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    assert cfg.stack.experts is not None
    return _stack(cfg, experts=replace(cfg.stack.experts, normalize=True)), state


@bug("mamba2", "tied")
def steps_without_limits(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    return _mixer(cfg, dt_min=0.0, dt_max=None), state


@bug("mamba2", "tied")
def norm_of_another_eps(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    return _mixer(cfg, norm_eps=1e-5), state


@bug("mamba2", "untied")
def groups_exchanged(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    return cfg, _changed(state, "conv.weight", lambda x: torch.cat([x[:64], x[64:].roll(5, 0)]))


@bug("rwkv", "rescaled")
def stream_never_halved(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    return _stack(cfg, halve_every=None), state


@bug("rwkv", "rescaled")
def halved_a_block_late(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    return _stack(cfg, halve_every=3), state


@bug("rwkv", "tied")
def mixtures_the_wrong_way_round(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    return cfg, _changed(state, "mlp.mix_k.weight", lambda x: 1 - x)


@bug("rwkv", "tied")
def bonus_of_the_newest_forgotten(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    return cfg, _changed(state, "first.weight", torch.zeros_like)


@bug("rwkv", "tied")
def decay_and_bonus_swapped(cfg: ModelConfig, state: dict[str, Tensor]) -> Any:
    return cfg, _swapped(state, ".decay.", ".first.")


@pytest.mark.parametrize("name", BUGS)
def test_parity_notices_a_planted_bug(name: str) -> None:
    family, specimen, plant = BUGS[name]
    hf = zoo.hugging_face(family, specimen)
    cfg, state = read(hf.config.to_dict(), hf.state_dict())
    sound = worst(Transformer.from_state(cfg, state), hf)
    broken = worst(Transformer.from_state(*plant(cfg, state)), hf)
    assert sound < CLOSE
    assert broken > 10 * CLOSE
