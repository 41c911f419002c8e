"""Every method that estimates edges, against its definition computed the slow way."""

from __future__ import annotations

import pytest
import torch

from circuits import attribute, patch
from circuits.attribute import check_steps, methods
from circuits.graph import Graph
from circuits.integration import CAP, TOLERANCE, gauss_legendre
from circuits.relevance import relevance_edits
from lens.progress import Cancelled
from lens.taps import Taps
from tests.circuits.naive import KINDS, edge_attribution, measure, outputs, pairs_for
from tests.circuits.naive_gradients import gauss, input_gradients, relevance, scores_from

SEQUENTIAL = ["sequential", "grouped", "no norm, biases"]
GATED = {"gated": True, "act_fn": "silu", "norm": "rms", "n_kv_heads": 2}


def close(fast: torch.Tensor, slow: torch.Tensor) -> bool:
    size = float(slow.abs().max())
    assert size > 1e-4
    return torch.allclose(fast, slow, rtol=1e-4, atol=1e-8 * size)


def differences(model, pairs):
    graph = Graph.of(model.cfg)
    clean, corrupt = (outputs(model, graph, pairs, ids) for ids in (pairs.clean, pairs.corrupt))
    return [b - a for a, b in zip(clean, corrupt, strict=True)]


def test_integration_points_are_those_of_the_closed_form():
    for n in (1, 2, 3):
        assert torch.allclose(torch.tensor(gauss_legendre(n)), torch.tensor(gauss(n)), atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_eap_ig_is_the_mean_gradient_on_the_way_of_the_embeddings(make_tiny, kind):
    model = make_tiny(**KINDS[kind]).double()
    pairs, graph = pairs_for(model, padded=True), Graph.of(model.cfg)
    d = differences(model, pairs)
    slow = torch.zeros(graph.valid.shape, dtype=torch.float64)
    for share, weight in gauss(3):
        edits = {"blocks.0.hook_resid_pre": lambda x, share=share: x + share * d[0]}
        slow += weight * scores_from(graph, d, input_gradients(model, pairs, pairs.clean, edits))
    assert close(attribute(model, pairs, "eap-ig", steps=3).values, slow)


@pytest.mark.parametrize("kind", KINDS)
def test_clean_corrupted_is_the_mean_of_the_two_prompts_gradients(make_tiny, kind):
    model = make_tiny(**KINDS[kind]).double()
    pairs, graph = pairs_for(model, padded=True), Graph.of(model.cfg)
    d = differences(model, pairs)
    slow = sum(
        scores_from(graph, d, input_gradients(model, pairs, ids)) / 2 for ids in (pairs.clean, pairs.corrupt)
    )
    assert close(attribute(model, pairs, "clean-corrupted").values, slow)


@pytest.mark.parametrize("kind", KINDS)
def test_eap_ig_activations_moves_each_group_alone(make_tiny, kind):
    model = make_tiny(**KINDS[kind]).double()
    pairs, graph = pairs_for(model, padded=True), Graph.of(model.cfg)
    d = differences(model, pairs)
    sites = ["attn_out", "mlp_out"] if graph.mlp else ["attn_out"]
    runs = [
        model.run_with_cache(ids, ["blocks.0.hook_resid_pre", *sites], attention_mask=pairs.attention_mask)[1]
        for ids in (pairs.clean, pairs.corrupt)
    ]
    groups = [("blocks.0.hook_resid_pre", [0])]
    for layer in range(graph.n_layers):
        heads = graph.head_senders(layer)
        groups.append((f"blocks.{layer}.hook_attn_out", [*range(heads.start, heads.stop)]))
        if graph.mlp:
            groups.append((f"blocks.{layer}.hook_mlp_out", [heads.stop]))
    slow = torch.zeros(graph.valid.shape, dtype=torch.float64)
    for site, members in groups:
        for share, weight in gauss(2):
            value = (1 - share) * runs[0][site] + share * runs[1][site]
            gradients = input_gradients(model, pairs, pairs.clean, {site: lambda _, value=value: value})
            slow += weight * scores_from(graph, d, gradients, members)
    assert close(attribute(model, pairs, "eap-ig-activations", steps=2).values, slow)


@pytest.mark.parametrize("kind", ["sequential", "grouped", "parallel", "sandwich"])
def test_activations_scores_of_a_group_add_up_to_its_exact_patch(make_tiny, kind):
    model = make_tiny(**KINDS[kind]).double()
    pairs, graph = pairs_for(model), Graph.of(model.cfg)
    mlps = patch(model, pairs, "mlp_out", by_position=False).effect
    heads = patch(model, pairs, "attn_out", by_position=False).effect
    missing = []
    for steps in (1, 3, 12):
        nodes = attribute(model, pairs, "eap-ig-activations", steps=steps).values.sum(1)
        found = torch.stack([nodes[graph.mlp_sender(layer)] for layer in range(graph.n_layers)])
        groups = torch.stack([nodes[graph.head_senders(layer)].sum() for layer in range(graph.n_layers)])
        missing.append(float((found - mlps).abs().max() + (groups - heads).abs().max()))
    assert missing[2] < 2e-5
    assert missing[2] < 0.1 * missing[1] < 0.1 * missing[0]


@pytest.mark.parametrize("kind", KINDS)
def test_relp_is_eap_with_every_backward_rule_replaced(make_tiny, kind):
    model = make_tiny(**KINDS[kind]).double()
    pairs, graph = pairs_for(model, padded=True), Graph.of(model.cfg)
    gradients = input_gradients(model, pairs, pairs.clean, relevance_edits(model))
    slow = scores_from(graph, differences(model, pairs), gradients)
    fast = attribute(model, pairs, "relp").values
    assert close(fast, slow)
    for layer in range(graph.n_layers):
        for kind_of in ("q", "k"):
            assert (fast[:, graph.receiver_slice(kind_of, layer)] == 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_relevance_keeps_the_forward_values(make_tiny, kind):
    model = make_tiny(**KINDS[kind]).double()
    pairs = pairs_for(model)
    plain = measure(model, pairs, pairs.clean)
    assert torch.allclose(
        measure(model, pairs, pairs.clean, Taps(edits=relevance_edits(model))), plain, atol=1e-12
    )


@pytest.mark.parametrize("kind", [*KINDS, "gated", "post-norm", "solu"])
def test_relevance_is_conserved_without_biases(make_tiny, kind):
    """Taking everything to zero takes away all relevance: what leaves the embedding, and every later stream."""
    from circuits.attribute_nodes import attribute_nodes

    others = {"gated": GATED, "post-norm": {"norm_placement": frozenset({"add"})}}
    others["solu"] = {"act_fn": "solu", "mlp_norm": True}
    model = make_tiny(**{**KINDS, **others}[kind]).double()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.zero_()
    pairs = pairs_for(model)
    value = measure(model, pairs, pairs.clean)
    if kind != "post-norm":
        scores = attribute(model, pairs, "relp", ablation="zero", per_example=True)
        assert torch.allclose(scores.per_example[:, 0].sum(1), -value, atol=1e-9)
    for site in ("resid_pre", "resid_mid", "resid_post"):
        if f"blocks.0.hook_{site}" in model.sites:
            found = attribute_nodes(model, pairs, "relp", site, by_position=False, ablation="zero")
            assert torch.allclose(found.per_example, -value.expand(2, -1), atol=1e-9)


@pytest.mark.parametrize("kind", [*SEQUENTIAL, "gated layer norm"])
def test_relevance_is_that_of_the_rules_written_out(make_tiny, kind):
    """No autograd on the other side: shares of every sum, rule by rule."""
    from circuits.attribute_nodes import attribute_nodes

    model = make_tiny(**KINDS.get(kind, {"gated": True, "act_fn": "gelu"})).double()
    pairs = pairs_for(model)
    slow = relevance(model, pairs)
    for site, name in (("resid_pre", "hook_resid_pre"), ("mlp_out", "hook_mlp_out"), ("z", "attn.hook_z")):
        fast = attribute_nodes(model, pairs, "relp", site, by_position=True, ablation="zero").per_example
        for layer in range(2):
            shares = slow[f"blocks.{layer}.{name}"].sum(-1)  # [n, p] or [n, p, h]
            assert close(fast[layer], -shares.movedim(0, -1))


@pytest.mark.parametrize("kind", KINDS)
def test_information_flow_is_the_literal_proximity(make_tiny, kind):
    model = make_tiny(**KINDS[kind]).double()
    pairs, graph = pairs_for(model, padded=True), Graph.of(model.cfg)
    wrote = outputs(model, graph, pairs, pairs.clean)
    reads = (
        ["resid_pre", "resid_post"] if model.block(0).one_sum else ["resid_pre", "resid_mid", "resid_post"]
    )
    _, cache = model.run_with_cache(pairs.clean, reads, attention_mask=pairs.attention_mask)
    slow = torch.zeros(graph.valid.shape, dtype=torch.float64)
    for r, node in enumerate(graph.receiver_nodes):
        site = "resid_mid" if node.kind == "mlp" and not model.block(0).one_sum else "resid_pre"
        x = cache["resid_post", graph.n_layers - 1] if node.kind == "logits" else cache[site, node.layer]
        for i in range(len(pairs)):
            real = pairs.mask[i].nonzero().flatten().tolist()
            for p in real:
                whole = x[i, p].abs().sum()
                near = [
                    max(0.0, float(whole - (x[i, p] - wrote[s][i, p]).abs().sum()))
                    for s in range(graph.reach[r])
                ]
                for s, one in enumerate(near):
                    slow[s, r] += one / sum(near) / len(real) / len(pairs)
    fast = attribute(model, pairs, "ifr").values
    assert close(fast, slow)
    assert torch.allclose(fast.sum(0), torch.ones(graph.n_receivers, dtype=torch.float64))


def ablated_outputs(model, pairs, kind):
    """Every sender's ablated output by hand, for models without output norms."""
    graph, sites = Graph.of(model.cfg), ["blocks.0.hook_resid_pre", "z", "mlp_out"]
    _, cache = model.run_with_cache(pairs.clean, sites, attention_mask=pairs.attention_mask)

    def ablated(x):
        if kind == "zero":
            return torch.zeros_like(x)
        real = pairs.mask.to(x.dtype).reshape(*pairs.mask.shape, *[1] * (x.ndim - 2))
        total = x * real
        if kind == "mean":
            return (total.sum((0, 1)) / real.sum()).expand_as(x)
        return (total.sum(0) / real.sum(0)).expand_as(x)

    found = [ablated(cache["resid_pre", 0])]
    for layer in range(graph.n_layers):
        z, attn = ablated(cache["z", layer]), model.block(layer).attn
        found += [z[:, :, h] @ attn.W_O[h] for h in range(graph.n_heads)]
        found.append(ablated(cache["mlp_out", layer]))
    return found


@pytest.mark.parametrize("ablation", ["zero", "mean", "mean-by-position"])
@pytest.mark.parametrize("kind", ["sequential", "grouped", "no norm, biases"])
def test_eap_under_constants_is_ablated_less_clean_times_the_gradient(make_tiny, kind, ablation):
    model = make_tiny(**KINDS[kind]).double()
    pairs, graph = pairs_for(model, padded=True), Graph.of(model.cfg)
    clean = outputs(model, graph, pairs, pairs.clean)
    d = [b - a for a, b in zip(clean, ablated_outputs(model, pairs, ablation), strict=True)]
    slow = scores_from(graph, d, input_gradients(model, pairs, pairs.clean))
    # a padded position gets no gradient, so what it is ablated to does not matter
    fast = attribute(model, pairs, "eap", ablation=ablation).values
    assert torch.allclose(fast, slow, rtol=1e-4, atol=1e-6 * float(slow.abs().max()))


@pytest.mark.parametrize("ablation", ["resample", "noise"])
def test_eap_under_runs_is_that_of_the_pairs_they_make(make_tiny, ablation):
    from circuits.ablation import get_ablation
    from circuits.senders import embed_site

    model = make_tiny().double()
    pairs, graph = pairs_for(model), Graph.of(model.cfg)
    source = get_ablation(ablation).source(model, pairs, [])
    if ablation == "resample":
        slow = edge_attribution(model, source.pairs)
    else:
        names = ["blocks.0.hook_resid_pre", "result", "mlp_out"]
        edits = {embed_site(model): lambda x: x + source.noise}
        _, noisy = model.run_with_cache(pairs.clean, names, edits=edits)
        wrote = [noisy["resid_pre", 0]]
        for layer in range(graph.n_layers):
            wrote += [*noisy["result", layer].unbind(2), noisy["mlp_out", layer]]
        clean = outputs(model, graph, pairs, pairs.clean)
        d = [b - a for a, b in zip(clean, wrote, strict=True)]
        slow = scores_from(graph, d, input_gradients(model, pairs, pairs.clean))
    assert close(attribute(model, pairs, "eap", ablation=ablation).values, slow)


@pytest.mark.parametrize("method", ["eap-ig", "eap-ig-activations"])
@pytest.mark.parametrize("ablation", ["counterfactual", "zero", "mean"])
def test_what_is_missing_from_completeness_vanishes_with_more_points(make_tiny, method, ablation):
    model = make_tiny().double()
    pairs = pairs_for(model)
    left = [
        attribute(model, pairs, method, steps=steps, ablation=ablation).completeness_residual
        for steps in (1, 4, 32)
    ]
    assert left[2] < 1e-2 * left[0]
    assert left[2] < 1e-3


@pytest.mark.parametrize("method", ["eap-ig", "eap-ig-activations"])
def test_automatic_steps_are_as_many_as_completeness_takes(make_tiny, method):
    model = make_tiny(**KINDS["no norm, biases"]).double()
    for block in model.blocks:
        block.attn.q.weight.mul_(3)  # sharper attention: a way with more turns
    pairs = pairs_for(model)
    change = measure(model, pairs, pairs.corrupt) - measure(model, pairs, pairs.clean)

    def missing(steps):
        scores = attribute(model, pairs, method, steps=steps, per_example=True)
        return scores, float((scores.per_example[:, 0].sum(1) - change).abs().sum() / change.abs().sum())

    found, left = missing("auto")
    assert 3 < found.steps < CAP
    assert left <= TOLERANCE < missing(found.steps // 2)[1]
    assert torch.equal(found.values, missing(found.steps)[0].values)
    assert attribute(model, pairs, "eap", steps="auto").steps == 1


def test_steps_that_are_not_a_number_are_named():
    for bad in (2.5, 0, -1, "many", True):
        with pytest.raises(ValueError, match=r"^steps is "):
            check_steps(bad)
    for good in (None, "auto", 1, 30):
        check_steps(good)


@pytest.mark.parametrize("method", [m for m in methods() if m not in ("ifr", "exact")])
def test_metrics_without_gradient_are_refused(make_tiny, method):
    model = make_tiny()
    with pytest.raises(ValueError, match="accuracy has no gradient"):
        attribute(model, pairs_for(model), method, metric="accuracy")


def test_information_flow_takes_any_metric(make_tiny):
    model = make_tiny()
    pairs = pairs_for(model)
    assert torch.equal(
        attribute(model, pairs, "ifr", "accuracy").values, attribute(model, pairs, "ifr").values
    )


def test_kl_is_compared_with_the_models_own_clean_run(make_tiny):
    model = make_tiny().double()
    pairs = pairs_for(model, n=5)
    assert attribute(model, pairs, "eap", metric="kl").values.abs().max() < 1e-12
    whole = attribute(model, pairs, "eap-ig", metric="kl", steps=16)
    assert whole.values.abs().max() > 1e-4
    assert whole.completeness_residual < 1e-6
    assert torch.allclose(
        attribute(model, pairs, "eap-ig", "kl", 16, max_memory=1).values, whole.values, atol=1e-12
    )


@pytest.mark.parametrize("method", [m for m in methods() if m != "exact"])
def test_cancelled_work_goes_on_where_it_was(make_tiny, method, tmp_path):
    model = make_tiny().double()
    pairs = pairs_for(model, n=4)
    whole = attribute(model, pairs, method, steps=3, per_example=True)
    options = {"per_example": True, "max_memory": 1, "checkpoint": tmp_path / "kept"}
    calls = []

    def stop(done: int, total: int, label: str) -> None:
        calls.append(done)
        if done >= total / 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        attribute(model, pairs, method, steps=3, progress=stop, **options)
    kept = {file.name for file in (tmp_path / "kept").iterdir()}
    again = []
    found = attribute(
        model, pairs, method, steps=3, progress=lambda done, total, label: again.append(done), **options
    )
    assert len(kept) > 1
    assert torch.allclose(found.per_example, whole.per_example, atol=1e-12)
    assert found.completeness_residual == pytest.approx(whole.completeness_residual, abs=1e-10)
    assert not (tmp_path / "kept").exists()
