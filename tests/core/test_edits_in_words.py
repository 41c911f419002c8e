"""What `lens info` says of edits, and that it is so: every sentence is tried on a model it is said of."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lens.edits_in_words import edits_in_words
from lens.inputs import ModelInputs
from lens.model import Transformer
from tests.parity import FAMILIES, ours, prompts
from tests.zoo import ZOO

AT = 5


def said(model: Transformer, beginning: str) -> bool:
    return any(line.startswith(beginning) for line in edits_in_words(model.cfg))


def bumped(x: Tensor) -> Tensor:
    x = x.clone()
    x[:, AT] += 1.0
    return x


def moved(
    model: Transformer,
    edited: str,
    read: str,
    edit: Callable[[Tensor], Tensor] = bumped,
    given: object = None,
) -> Tensor:
    """Where an edit changes what is read: True per axis of positions, [p] or whatever the site has first."""
    given = prompts(2)
    before = model.run_with_cache(given, [read])[1][read]
    after = model.run_with_cache(given, [read], edits={edited: edit})[1][read]
    return (before - after).abs().flatten(2).amax((0, 2)) > 1e-9


@pytest.mark.parametrize("family", FAMILIES)
def test_something_is_said_of_every_model(family: str) -> None:
    for name in ZOO[family]:
        lines = edits_in_words(ours(family, name).cfg)
        assert lines and len(set(lines)) == len(lines)


def test_how_far_an_edit_reaches() -> None:
    decoder, encoder = ours("llama", "untied", torch.float64), ours("bert", "base", torch.float64)
    last = f"blocks.{decoder.cfg.n_layers - 1}.hook_resid_post"
    assert said(decoder, "an edit at one position reaches that position and those after it")
    found = moved(decoder, "blocks.0.hook_resid_pre", last)
    assert not found[:AT].any() and found[AT:].all()
    perceiver = ours("perceiver", "twice", torch.float64)
    assert said(perceiver, "decoder: an edit at one position reaches that position alone")
    assert said(perceiver, "encoder: an edit at one position reaches all positions")
    found = moved(perceiver, "decoder.0.attn.hook_q", "decoder.0.hook_resid_post")
    assert found[AT] and found.sum() == 1
    assert said(encoder, "an edit at one position reaches all positions")
    assert moved(
        encoder, "blocks.0.hook_resid_pre", f"blocks.{encoder.cfg.n_layers - 1}.hook_resid_post"
    ).all()


@pytest.mark.parametrize(
    ("family", "name", "reaches"), [("llama", "untied", True), ("gptj", "partial", False)]
)
def test_what_the_mlp_reads(family: str, name: str, *, reaches: bool) -> None:
    model = ours(family, name, torch.float64)
    assert said(model, "the MLP reads the stream after attention") == reaches
    assert said(model, "attention and MLP read resid_pre") != reaches
    assert bool(moved(model, "blocks.0.hook_attn_out", "blocks.0.hook_mlp_out").any()) == reaches


def test_a_norm_follows_each_sum() -> None:
    model = ours("bert", "base", torch.float64)
    assert said(model, "a norm follows each sum")
    post, read = "blocks.0.hook_resid_post", "blocks.1.hook_resid_pre"
    change = _change(model, post, read)
    assert not torch.allclose(change, torch.ones_like(change)), "what was added came through unscaled"
    assert torch.allclose(
        _change(model, "blocks.0.hook_normalized_resid_post", read), torch.ones_like(change)
    )
    plain = ours("llama", "untied", torch.float64)
    assert not said(plain, "a norm follows each sum")
    assert torch.allclose(_change(plain, post, read), torch.ones_like(change[..., :1]))


def _change(model: Transformer, edited: str, read: str) -> Tensor:
    ids = prompts(2)
    before = model.run_with_cache(ids, [read])[1][read]
    after = model.run_with_cache(ids, [read], edits={edited: lambda x: x + 1.0})[1][read]
    return after - before


def test_outputs_behind_norms_on_branches() -> None:
    model = ours("olmo2", "grouped", torch.float64)
    assert said(model, "attn_out and mlp_out are what joins the stream")
    change = _change(model, "blocks.0.hook_attn_out", "blocks.0.hook_resid_mid")
    assert torch.allclose(change, torch.ones_like(change))


def test_grouped_queries_share_keys() -> None:
    model = ours("llama", "untied", torch.float64)
    group = model.cfg.n_heads // model.cfg.n_key_value_heads
    assert said(model, f"k and v, and k_input and v_input, belong to {group} query heads each")

    def first(k: Tensor) -> Tensor:
        k = k.clone()
        k[:, :, 0] += 1.0 + torch.arange(k.shape[1])[:, None]
        return k

    ids = prompts(2)
    before = model.run_with_cache(ids, ["blocks.0.attn.hook_pattern"])[1]["pattern", 0]
    edits = {"blocks.0.attn.hook_k": first}
    after = model.run_with_cache(ids, ["blocks.0.attn.hook_pattern"], edits=edits)[1]["pattern", 0]
    heads = (before - after).abs().amax((0, 2, 3)) > 1e-9
    assert heads[:group].all() and not heads[group:].any()


def test_routers_choose_and_weights_only_count() -> None:
    model = ours("mixtral", next(iter(ZOO["mixtral"])), torch.float64)
    assert said(model, "router_logits decide")
    chosen = "blocks.0.mlp.hook_expert_indices"

    def flipped(x: Tensor) -> Tensor:
        return -x

    assert moved(model, "blocks.0.mlp.hook_router_logits", chosen, flipped).any()
    assert not moved(model, "blocks.0.mlp.hook_expert_weights", chosen, flipped).any()
    assert moved(model, "blocks.0.mlp.hook_expert_weights", "blocks.0.hook_mlp_out", flipped).all()


def test_shared_layers_have_sites_of_their_own() -> None:
    model = ours("albert", "base", torch.float64)
    assert said(model, "layers that share their parameters")
    assert moved(model, "blocks.1.hook_attn_out", "blocks.1.hook_resid_mid").any()
    assert not moved(model, "blocks.1.hook_attn_out", "blocks.0.hook_resid_mid").any()


def test_encoders_are_edited_where_they_run() -> None:
    model = ours("bart", "plain", torch.float64)
    assert said(
        model, "an edit of an encoder site reaches the decoder through cross-attention in every block"
    )
    assert said(model, "encoder: an edit at one position reaches all") and said(
        model, "decoder: an edit at one position"
    )
    edited = "encoder.0.hook_resid_pre"
    for layer in range(model.cfg.n_layers):
        assert moved(model, edited, f"decoder.{layer}.hook_cross_attn_out").all()
    made = ModelInputs(ids=prompts(2), source=model.encode(prompts(2)))
    with pytest.raises(ValueError, match="cannot fire"):
        model.run_with_cache(made, [], edits={edited: bumped})


def test_patterns_are_used_as_they_are() -> None:
    model = ours("llama", "untied", torch.float64)
    assert said(model, "attn_scores are edited before the softmax")
    z, pattern = "blocks.0.attn.hook_z", "blocks.0.attn.hook_pattern"
    ids = prompts(2)
    before = model.run_with_cache(ids, [z])[1][z]
    after = model.run_with_cache(ids, [z], edits={pattern: lambda x: 2 * x})[1][z]
    assert torch.allclose(after, 2 * before)
    scores = "blocks.0.attn.hook_attn_scores"
    rows = model.run_with_cache(ids, [pattern], edits={scores: lambda x: 2 * x})[1][pattern].sum(-1)
    assert torch.allclose(rows, torch.ones_like(rows))


def test_classes_are_read_at_the_first_position() -> None:
    model = ours("vit", "classifier", torch.float64)
    assert said(model, "classes are read at the first position")
    image = torch.randn(2, 3, *model.cfg.embed.patches.image_size, dtype=torch.float64)  # type: ignore[union-attr]
    last = f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"
    before = model(ModelInputs(image=image))
    for at, changes in ((0, True), (3, False)):

        def edit(x: Tensor, at: int = at) -> Tensor:
            x = x.clone()
            x[:, at] += torch.arange(x.shape[-1])
            return x

        after = model.run_with_cache(ModelInputs(image=image), [], edits={last: edit})[0]
        assert (not torch.allclose(before, after)) == changes
