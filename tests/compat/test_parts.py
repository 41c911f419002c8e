"""Parts called by themselves, beside TransformerLens 2.18's; `record_encoders.py` made the numbers."""

from __future__ import annotations

import copy

import pytest
import torch

from tests.compat import calls, calls_parts
from tests.compat.test_reference import compare, each_case, ours, recorded


@each_case
def test_parts_by_themselves(name: str, processed: bool) -> None:
    start = f"{name}/{processed}/"
    expected = {n.removeprefix(start): x for n, x in recorded("parts").items() if n.startswith(start)}
    found = calls_parts.of_parts(ours(name, processed))
    assert set(found) == set(expected)
    compare(found, expected, "parts")


def test_parts_say_what_a_run_says() -> None:
    """Put together by hand, they are the model; gradients go through them."""
    model = ours("gpt2", False)
    x = (model.embed(calls.ids()) + model.pos_embed(calls.ids())).requires_grad_()
    stream = x
    for block in model.blocks:
        read = block.ln1(stream)
        mid = stream + block.attn(read, read, read)
        stream = mid + block.mlp(block.ln2(mid))
    logits = model.unembed(model.ln_final(stream))
    assert torch.allclose(logits, model(calls.ids()), atol=1e-5)
    assert torch.autograd.grad(logits.sum(), x)[0].abs().max() > 0


def test_hooks_of_a_block_and_of_a_copy_act_on_parts() -> None:
    model = ours("gpt2", False)
    x, point = torch.randn(1, 3, 12), "blocks.0.mlp.hook_post"
    plain = model.blocks[0].mlp(x)
    with model.hooks([(point, lambda x, hook: x * 0)]):
        assert torch.equal(model.blocks[0].mlp(x)[0, 0], model.b_out[0])
    twin = copy.deepcopy(model)
    twin.add_hook(point, lambda x, hook: x * 0)
    assert torch.equal(model.blocks[0].mlp(x), plain)
    assert torch.equal(twin.blocks[0].mlp(x)[0, 0], twin.b_out[0])
    twin.process_weights_(fold_ln=True)
    assert torch.allclose(twin.blocks[0].mlp(x)[0, 0], twin.b_out[0])


def test_a_part_outlives_its_model() -> None:
    x = torch.randn(1, 3, 12)
    mlp = ours("gpt2", False).blocks[0].mlp
    assert torch.equal(mlp(x), ours("gpt2", False).blocks[0].mlp(x))


def test_a_module_in_a_hook_points_place_acts_on_parts() -> None:
    class Half(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x / 2

    model = ours("gpt2", False)
    x, mlp = torch.randn(1, 3, 12), model.blocks[0].mlp
    expected = (mlp(x) - mlp.b_out) / 2 + mlp.b_out
    mlp.hook_post = Half()
    assert torch.allclose(mlp(x), expected, atol=1e-6)


def test_refusals_of_parts() -> None:
    model, x = ours("gpt2", False), torch.randn(1, 3, 12)
    with pytest.raises(ValueError, match=r"attention by itself needs key_input, value_input"):
        model.blocks[0].attn(x)
    with pytest.raises(ValueError, match="takes no past_kv_cache_entry: give the model a past_kv_cache"):
        model.blocks[0].attn(x, x, x, past_kv_cache_entry=3)
