"""The weight-table engine on small tables: what it maps, what it refuses, what it leaves alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lens.weights import Table, alias, fused, same, skipped, stacked, transposed

LAYER, BLOCK = "model.layers.{l}", "blocks.{l}"

TABLE = Table(
    "toy",
    (
        same("model.embed", "embed"),
        transposed(f"{LAYER}.up", f"{BLOCK}.up"),
        fused(
            f"{LAYER}.qkv",
            f"{BLOCK}.q",
            f"{BLOCK}.k",
            f"{BLOCK}.v",
            weight="(h n e) d -> n (h e) d",
            bias="(h n e) -> n (h e)",
            h=2,
        ),
        stacked(f"{LAYER}.kv", {f"{BLOCK}.wide": 4, f"{BLOCK}.narrow": 2}),
        same(f"{LAYER}.experts.{{e}}.a", f"{BLOCK}.experts.{{e}}.gate"),
        same(f"{LAYER}.experts.{{e}}.b", f"{BLOCK}.experts.{{e}}.up"),
        alias(
            fused(
                f"{LAYER}.experts.ab",
                f"{BLOCK}.experts.{{e}}.gate.weight",
                f"{BLOCK}.experts.{{e}}.up.weight",
                weight="e (n m) d -> n e m d",
            )
        ),
        same("head", "unembed"),
        alias(same("old_head", "unembed")),
        *skipped("model.inv_freq", f"{LAYER}.mask"),
    ),
    prefix="model.",
)


def checkpoint() -> dict[str, Tensor]:
    """One layer as it is saved."""
    shapes = {
        "model.embed.weight": (7, 3),
        "model.layers.0.up.weight": (3, 5),
        "model.layers.0.up.bias": (5,),
        "model.layers.0.qkv.weight": (12, 3),
        "model.layers.0.qkv.bias": (12,),
        "model.layers.0.kv.weight": (6, 3),
        "model.layers.0.experts.0.a.weight": (4, 3),
        "model.layers.0.experts.0.b.weight": (4, 3),
        "model.layers.0.experts.1.a.weight": (4, 3),
        "model.layers.0.experts.1.b.weight": (4, 3),
        "head.weight": (7, 3),
    }
    return {name: torch.randn(shape) for name, shape in shapes.items()}


SHAPES = {
    "embed.weight": (7, 3),
    "blocks.0.up.weight": (5, 3),
    "blocks.0.up.bias": (5,),
    **{f"blocks.0.{x}.weight": (4, 3) for x in "qkv"},
    **{f"blocks.0.{x}.bias": (4,) for x in "qkv"},
    "blocks.0.wide.weight": (4, 3),
    "blocks.0.narrow.weight": (2, 3),
    **{f"blocks.0.experts.{e}.{x}.weight": (4, 3) for e in range(2) for x in ("gate", "up")},
    "unembed.weight": (7, 3),
}


def in_memory(saved: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same checkpoint with experts in one tensor and the head's other name."""
    rest = {n: x for n, x in saved.items() if ".experts." not in n and n != "head.weight"}
    experts = [torch.cat([saved[f"model.layers.0.experts.{e}.{x}.weight"] for x in "ab"]) for e in range(2)]
    return {
        **rest,
        "model.layers.0.experts.ab": torch.stack(experts),
        "old_head.weight": saved["head.weight"],
    }


def same_tensors(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_every_kind_of_rule_reads_what_it_says() -> None:
    saved = checkpoint()
    state = TABLE.read(saved, SHAPES)
    assert {name: tuple(x.shape) for name, x in state.items()} == SHAPES
    assert torch.equal(state["blocks.0.up.weight"], saved["model.layers.0.up.weight"].T)
    qkv = saved["model.layers.0.qkv.weight"]  # head 0: q q k k v v, head 1: q q k k v v
    assert torch.equal(state["blocks.0.k.weight"], qkv[[2, 3, 8, 9]])
    assert torch.equal(state["blocks.0.v.bias"], saved["model.layers.0.qkv.bias"][[4, 5, 10, 11]])
    assert torch.equal(state["blocks.0.narrow.weight"], saved["model.layers.0.kv.weight"][4:])
    assert torch.equal(state["blocks.0.experts.1.up.weight"], saved["model.layers.0.experts.1.b.weight"])


def test_writing_is_the_inverse_of_reading() -> None:
    saved = checkpoint()
    state = TABLE.read(saved, SHAPES)
    assert same_tensors(TABLE.write(state), saved)
    assert all(x.is_contiguous() for x in TABLE.write(state).values())


def test_other_names_of_the_same_weights_read_and_write_too() -> None:
    saved = checkpoint()
    other = in_memory(saved)
    state = TABLE.read(other, SHAPES)
    assert same_tensors(state, TABLE.read(saved, SHAPES))
    assert same_tensors(TABLE.write(state, other), other)
    assert same_tensors(TABLE.write(state), saved)


def test_a_missing_prefix_and_buffers_are_accepted() -> None:
    saved = checkpoint()
    bare = {name.removeprefix("model."): x for name, x in saved.items()}
    buffers = {
        "layers.0.mask": torch.ones(1),
        "inv_freq": torch.ones(2),
        "model.layers.0.mask": torch.ones(1),
    }
    state = TABLE.read(bare | buffers, SHAPES)
    assert same_tensors(state, TABLE.read(saved, SHAPES))
    assert same_tensors(TABLE.write(state, bare | buffers), bare)


def test_nothing_is_copied_that_need_not_be() -> None:
    saved = checkpoint()
    state = TABLE.read(saved, SHAPES)
    assert state["embed.weight"] is saved["model.embed.weight"]
    assert state["unembed.weight"] is saved["head.weight"]
    views = {
        "blocks.0.up.weight": "model.layers.0.up.weight",
        "blocks.0.wide.weight": "model.layers.0.kv.weight",
        "blocks.0.experts.0.gate.weight": "model.layers.0.experts.0.a.weight",
    }
    for ours, theirs in views.items():
        assert state[ours].data_ptr() == saved[theirs].data_ptr(), ours
    assert TABLE.write(state)["model.embed.weight"] is saved["model.embed.weight"]
    stacked_experts = in_memory(saved)["model.layers.0.experts.ab"]
    part = TABLE.read({**in_memory(saved), "model.layers.0.experts.ab": stacked_experts}, SHAPES)
    assert part["blocks.0.experts.0.gate.weight"].data_ptr() == stacked_experts.data_ptr()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model.layers.0.upp.weight", "did you mean 'model.layers.0.up.weight'"),
        ("model.layers.0.experts.1.aa.weight", "did you mean 'model.layers.0.experts.1.a.weight'"),
        ("layers.0.qkw.weight", "'model.layers.0.qkv.weight'"),
        ("model.embed", "'model.embed.weight'"),
    ],
)
def test_a_tensor_without_a_rule_is_named_with_the_nearest(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        TABLE.read({**checkpoint(), name: torch.zeros(1)}, SHAPES)
    assert name in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_tensor_with_two_rules_is_named_with_both() -> None:
    twice = Table("toy", (*TABLE.rules, same(f"{LAYER}.up", "other.{l}")), prefix="model.")
    with pytest.raises(ValueError, match=r"'model\.layers\.0\.up\.weight' meets more than one rule"):
        twice.read(checkpoint(), SHAPES)


def test_a_missing_tensor_is_named_on_both_sides() -> None:
    saved = checkpoint()
    del saved["model.layers.0.experts.1.b.weight"]
    with pytest.raises(
        ValueError, match=r"'model\.layers\.0\.experts\.1\.b\.weight' for blocks\.0\.experts\.1\.up"
    ):
        TABLE.read(saved, SHAPES)
    del saved["head.weight"]
    assert "unembed.weight" not in TABLE.read(
        saved, SHAPES, optional=["unembed.weight", "blocks.0.experts.1.up.weight"]
    )
    with pytest.raises(ValueError, match=r"\(and 1 more\)"):
        TABLE.read(saved, SHAPES)


def test_one_parameter_given_twice_names_both_tensors() -> None:
    saved = {**checkpoint(), "old_head.weight": torch.zeros(7, 3)}
    with pytest.raises(ValueError, match=r"'head\.weight' and 'old_head\.weight' both give unembed\.weight"):
        TABLE.read(saved, SHAPES)


@pytest.mark.parametrize(
    ("name", "shape", "messages"),
    [
        (
            "model.layers.0.up.weight",
            (5, 3),
            ["model.layers.0.up.weight", "blocks.0.up.weight", "[3, 5]", "[5, 3]"],
        ),
        (
            "model.layers.0.qkv.weight",
            (11, 3),
            ["model.layers.0.qkv.weight' [11, 3]", "blocks.0.q.weight [4, 3]"],
        ),
        ("model.layers.0.qkv.weight", (12,), ["model.layers.0.qkv.weight' [12]", "blocks.0.v.weight [4, 3]"]),
        (
            "model.layers.0.kv.weight",
            (7, 3),
            ["model.layers.0.kv.weight' [7, 3]", "blocks.0.narrow.weight [2, 3]"],
        ),
    ],
)
def test_shapes_that_disagree_are_named_on_both_sides(
    name: str, shape: tuple[int, ...], messages: list[str]
) -> None:
    with pytest.raises(ValueError, match="checkpoint tensor") as raised:
        TABLE.read({**checkpoint(), name: torch.zeros(shape)}, SHAPES)
    assert all(message in str(raised.value) for message in messages), str(raised.value)


def test_a_parameter_the_model_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'head\.bias' gives unembed\.bias, which this model does not have"):
        TABLE.read({**checkpoint(), "head.bias": torch.zeros(7)}, SHAPES)
    more = torch.zeros(3, 8, 3)
    with pytest.raises(ValueError, match=r"gives blocks\.0\.experts\.2\.gate\.weight"):
        TABLE.read({**in_memory(checkpoint()), "model.layers.0.experts.ab": more}, SHAPES)


def test_a_name_that_cannot_be_written_is_refused() -> None:
    state = TABLE.read(checkpoint(), SHAPES)
    with pytest.raises(
        ValueError, match=r"'head\.bias' cannot be written: there is no parameter 'unembed\.bias'"
    ):
        TABLE.write(state, ["head.bias"])
    with pytest.raises(ValueError, match="is not a tensor of the toy family"):
        TABLE.write(state, ["tail.weight"])


def test_a_parameter_without_a_place_is_refused() -> None:
    state = {**TABLE.read(checkpoint(), SHAPES), "blocks.0.down.weight": torch.zeros(1)}
    with pytest.raises(
        ValueError, match=r"'blocks\.0\.down\.weight' has no place in a checkpoint of the toy family"
    ):
        TABLE.write(state)


def test_a_lazy_mapping_will_do() -> None:
    from collections.abc import Iterator, Mapping

    class Lazy(Mapping[str, Tensor]):
        def __init__(self) -> None:
            self.tensors = checkpoint()

        def __getitem__(self, name: str) -> Tensor:
            return self.tensors[name].clone()

        def __iter__(self) -> Iterator[str]:
            return iter(self.tensors)

        def __len__(self) -> int:
            return len(self.tensors)

    lazy = Lazy()
    assert same_tensors(TABLE.read(lazy, SHAPES), TABLE.read(lazy.tensors, SHAPES))
