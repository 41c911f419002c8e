"""Who writes a direction: the sum is the stream, and each part is what the run itself says it is."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from lens.model import Transformer
from probes.writers import Writers, writers
from tests.parity import ours, prompts

FAMILIES = [
    ("gpt2", "tied"), ("gpt_neo", "windowed"), ("gptj", "partial"), ("gpt_neox", "parallel"),
    ("gpt_neox", "sequential"), ("opt", "before"), ("llama", "untied"), ("llama", "biased"),
    ("qwen2", "windowed"), ("gemma", "tied"),
    ("gemma2", "capped"), ("gemma2", "uncapped"), ("olmo2", "grouped"), ("olmo2", "biased"),
    ("phi", "plain"), ("mixtral", "top2"),
]  # fmt: skip


def direction(model: Transformer) -> Tensor:
    return torch.randn(model.cfg.d_model, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


@pytest.mark.parametrize(("family", "name"), FAMILIES, ids=[f"{f}-{n}" for f, n in FAMILIES])
def test_the_components_are_the_stream(family: str, name: str) -> None:
    """At every stream of every layer the components add up to the projection, in float64 to its rounding."""
    model, ids = ours(family, name, torch.float64), prompts()
    u = direction(model) / direction(model).norm()
    streams = [s for s, site in model.sites.items() if site.kind.startswith("hook_resid_")]
    _, cache = model.run_with_cache(ids, streams)
    sizes = set()
    for site in streams:
        found = writers(model, ids, direction(model), site, at=5)
        torch.testing.assert_close(found.values.sum(1), cache[site][:, 5] @ u, rtol=1e-10, atol=1e-10)
        assert found.error < 1e-10
        sizes.add(found.values.shape[1])
    assert len(sizes) > model.cfg.n_layers, "later streams have more components"


@pytest.mark.parametrize(("family", "name"), [("llama", "untied"), ("gpt2", "tied"), ("olmo2", "biased")])
def test_each_component_is_what_the_run_adds(family: str, name: str) -> None:
    """A head is what is missing from the next stream when its result is set to zero; an MLP is its output."""
    model, ids = ours(family, name, torch.float64), prompts()
    u = direction(model) / direction(model).norm()
    last = model.cfg.n_layers - 1
    site = f"blocks.{last}.hook_resid_post"
    found = writers(model, ids, u, site, at=[12, 4, 7])
    values = dict(zip(found.names, found.values.T, strict=True))
    rows, at = torch.arange(3), torch.tensor([12, 4, 7])
    _, cache = model.run_with_cache(ids, ["mlp_out", "resid_pre"])
    for layer in range(last + 1):
        torch.testing.assert_close(values[f"m{layer}"], cache["mlp_out", layer][rows, at] @ u)
    torch.testing.assert_close(values["embed"], cache["resid_pre", 0][rows, at] @ u)
    if model.block(last).ln1_post is None:  # through a norm of the branch, the other heads' shares change too
        attn = f"blocks.{last}.hook_attn_out"
        _, before = model.run_with_cache(ids, [attn])
        for head in range(model.cfg.n_heads):

            def without(z: Tensor, head: int = head) -> Tensor:
                z = z.clone()
                z[:, :, head] = 0
                return z

            _, after = model.run_with_cache(ids, [attn], edits={f"blocks.{last}.attn.hook_z": without})
            lost = (before[attn] - after[attn])[rows, at] @ u
            torch.testing.assert_close(values[f"a{last}.h{head}"], lost)
    biased = model.block(0).attn.o.bias is not None
    assert (f"a{last}.bias" in found.names) == biased


def test_names_are_those_of_a_circuits_nodes() -> None:
    from circuits.graph import Graph

    for family, name in (("llama", "untied"), ("gpt2", "tied"), ("gpt_neox", "parallel")):
        model = ours(family, name, torch.float64)
        found = writers(
            model, prompts(), direction(model), f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"
        )
        assert tuple(found.nodes()) == Graph.of(model.cfg).senders


def test_attention_only_model(induction: Transformer) -> None:
    ids = torch.randint(5, 40, (4, 9), generator=torch.Generator().manual_seed(0))
    found = writers(induction, ids, direction(induction), "blocks.1.hook_resid_post")
    assert found.error < 1e-5
    assert not [name for name in found.names if name.startswith("m")]


def test_norms_with_mean_and_bias_on_branches(tiny: Transformer) -> None:
    stack = replace(tiny.cfg.stack, norm_placement=frozenset({"in", "out"}), attn_bias=frozenset({"o"}))
    model = Transformer(replace(tiny.cfg, stack=stack))
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.5
    assert model.block(0).ln1_post is not None
    ids = torch.randint(1, 40, (5, 7), generator=generator)
    found = writers(model, ids, direction(model), "blocks.2.hook_resid_post", at=[1, 2, 3, 4, 6])
    assert "a2.bias" in found.names
    assert found.error < 1e-10


def test_texts_of_any_length_are_as_alone(tiny: Transformer) -> None:
    texts = ["bar del", "gin kop lut mar nel", "fop", "bar del gin kop"]
    site, u = "blocks.2.hook_resid_post", direction(tiny)
    together = writers(tiny, texts, u, site, batch_size=3)
    for i, text in enumerate(texts):
        alone = writers(tiny, [text], u, site)
        torch.testing.assert_close(together.values[i], alone.values[0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(together.total[i], alone.total[0], rtol=1e-5, atol=1e-5)
    first = writers(tiny, texts, u, site, at=0)
    torch.testing.assert_close(first.values, writers(tiny, texts, u, site, at=[-3, -6, -2, -5]).values)


def test_pairs(tiny: Transformer) -> None:
    true, false = ["bar del gin", "kop lut"], ["bar mar gin", "kop nel"]
    site, u = "blocks.1.hook_resid_mid", direction(tiny)
    pairs = writers(tiny, true, u, site, against=false)
    expected = writers(tiny, true, u, site).values - writers(tiny, false, u, site).values
    torch.testing.assert_close(pairs.values, expected)
    torch.testing.assert_close(pairs.values.sum(1), pairs.total, rtol=1e-5, atol=1e-5)
    name, value = pairs.top(1)[0]
    assert abs(value) == float(pairs.mean.abs().max())
    assert pairs.nodes()[name] == value
    table = pairs.table
    assert list(table.component) == list(pairs.names)
    assert (table.low <= table["mean"] + 1e-12).all()
    assert (table["mean"] <= table.high + 1e-12).all()
    assert table.share.sum() == pytest.approx(1, abs=1e-4)


def test_a_probe_has_a_direction(tiny: Transformer) -> None:
    from probes.probe import Probe

    coef = torch.randn(3, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    probe = Probe.of(coef, torch.zeros(3).double(), "blocks.1.hook_resid_post", ("a", "b", "c"))
    found = writers(tiny, ["bar del"], probe, probe.site, name="b")
    torch.testing.assert_close(found.values, writers(tiny, ["bar del"], coef[1], probe.site).values)
    with pytest.raises(ValueError, match="has several directions"):
        writers(tiny, ["bar del"], probe, probe.site)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"site": "blocks.1.attn.hook_z"}, "is not one residual stream; name one, such as 'blocks.2.hook_resid_post'"),
        ({"site": "resid_post"}, "is not one residual stream"),
        ({"site": "blocks.1.hook_resid_pst"}, "did you mean 'blocks.1.hook_resid_post'"),
        ({"direction": torch.zeros(16)}, "the direction is zero or not finite"),
        ({"direction": torch.ones(15)}, r"the direction is \[15\], and the site 16 wide"),
        ({"direction": "truth"}, r"a direction is a vector \[16\] or a probe, not str"),
        ({"direction": torch.ones(16), "name": "b"}, "with the name 'b'"),
        ({"at": 3}, "position 3 is past the end of prompt 1, which has 3 tokens"),
        ({"at": [0]}, r"2 prompts and places of shape \[1\]"),
        ({"at": "first"}, "'first' is not a place in a prompt"),
        ({"inputs": []}, "there are no prompts"),
        ({"inputs": torch.tensor([[1, 41]])}, r"outside the vocabulary of tiny \(0 to 40\)"),
        ({"inputs": torch.zeros(2, 0).long()}, r"ids \[n, p\] with at least one of each, not \[2, 0\]"),
        ({"inputs": ["bar " * 12]}, "prompt 0: the prompt has 13 tokens and tiny takes at most 12"),
        ({"against": ["bar"]}, "2 prompts and 1 to compare them with"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)  # fmt: skip
def test_bad_input(tiny: Transformer, change: dict, message: str) -> None:
    options = {
        "inputs": ["bar del gin", "kop lut"],
        "direction": torch.ones(16),
        "site": "blocks.2.hook_resid_post",
    }
    with pytest.raises(ValueError, match=message) as error:
        writers(tiny, **{**options, **change})
    assert "\n" not in str(error.value)


def test_post_norm_is_refused() -> None:
    from tests.core.specimens import model

    with pytest.raises(ValueError, match="normalises the stream itself after each sum"):
        writers(model("post"), prompts() % 30, torch.ones(16), "blocks.1.hook_resid_post")


def test_different_writers_do_not_subtract(tiny: Transformer) -> None:
    found = writers(tiny, ["bar del"], torch.ones(16), "blocks.1.hook_resid_post")
    other = writers(tiny, ["bar del"], torch.ones(16), "blocks.2.hook_resid_post")
    turned = writers(tiny, ["bar del"], torch.arange(16).float(), "blocks.1.hook_resid_post")
    two = writers(tiny, ["bar del", "gin"], torch.ones(16), "blocks.1.hook_resid_post")
    for wrong, message in (
        (other, "and those at"),
        (turned, "directions differ"),
        (two, "1 prompts on one side and 2"),
    ):
        with pytest.raises(ValueError, match=message):
            found.minus(wrong)
    assert isinstance(found.minus(found), Writers)
