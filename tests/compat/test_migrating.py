"""What docs/migrating.md says of TransformerLens 4's bridge, on a tiny GPT-2, BERT and T5."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lens import HookedTransformer
from tests import zoo
from tests.test_transformerlens import boot

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
POINT = "blocks.0.attn.hook_z"


def ids() -> torch.Tensor:
    return torch.randint(3, zoo.D_VOCAB, (2, 6), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, HookedTransformer]:
    bridge = boot("gpt2", "tied", tmp_path_factory.mktemp("gpt2"))
    theirs = zoo.hugging_face("gpt2", "tied")
    return bridge, HookedTransformer.from_pretrained_no_processing("gpt2", hf_model=theirs, device="cpu")


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.allclose(a.detach(), b.detach(), atol=1e-4)


def test_running(pair: tuple[Any, HookedTransformer]) -> None:
    bridge, ours = pair
    tokens, logits = ids(), ours(ids())
    assert close(bridge(tokens), logits) and close(
        bridge(tokens, return_type="loss"), ours(tokens, return_type="loss")
    )
    assert type(bridge(tokens, return_type="both")) is tuple
    stream = bridge(tokens, stop_at_layer=1)
    assert close(bridge(stream, start_at_layer=1), logits)
    _, cache = bridge.run_with_cache(tokens)
    assert cache["pattern", 1] is cache["pattern1"]
    with pytest.raises(KeyError):
        bridge.run_with_cache(tokens, names_filter="blocks.0.attn.hook_zz")
    told: list[str] = []
    bridge.run_with_hooks(tokens, fwd_hooks=[(POINT, lambda z, hook: told.append(hook.name))])
    assert told == ["blocks.0.attn.o.hook_in"]
    from transformer_lens import TransformerLensKeyValueCache

    past = TransformerLensKeyValueCache.init_cache(bridge.cfg, "cpu", 2)
    bridge(tokens, past_kv_cache=past)
    assert close(bridge(tokens[:, :1], past_kv_cache=past), bridge(tokens[:, :1])), "it changes nothing"


def test_taking_apart(pair: tuple[Any, HookedTransformer]) -> None:
    bridge, ours = pair
    (_, theirs), (_, cache) = bridge.run_with_cache(ids()), ours.run_with_cache(ids())
    for name in ("accumulated_resid", "decompose_resid", "stack_head_results"):
        assert close(getattr(theirs, name)(apply_ln=True), getattr(cache, name)(apply_ln=True)), name
    assert close(theirs.get_neuron_results(1), cache.get_neuron_results(1))
    point = "blocks.1.ln1.hook_normalized"
    assert not close(theirs[point], cache[point])
    norm = ours.blocks[1].ln1
    assert close(theirs[point] * norm.w + norm.b, cache[point])
    assert close(bridge.W_Q, ours.W_Q) and close(bridge.QK.AB, ours.QK.AB)
    assert bridge.all_head_labels == ours.all_head_labels()
    x = torch.randn(2, 6, 32)
    assert close(bridge.blocks[0].mlp(x), ours.blocks[0].mlp(x))
    assert close(bridge.blocks[0].attn(x)[0], ours.blocks[0].attn(x, x, x))
    assert close(bridge.blocks[0](x)[0], ours.blocks[0](x))
    assert close(bridge.unembed(bridge.ln_final(x)), ours.unembed(ours.ln_final(x)))
    assert close(bridge.pos_embed(torch.arange(6)[None]), ours.pos_embed(ids())[:1])
    missing = ("sample_datapoint", "fold_layer_norm", "load_and_process_state_dict")
    assert not any(hasattr(bridge, name) for name in missing)


def test_made_from_a_configuration() -> None:
    from transformer_lens import TransformerBridge, TransformerBridgeConfig

    config = {
        "n_layers": 1,
        "d_model": 8,
        "n_ctx": 8,
        "d_head": 4,
        "n_heads": 2,
        "d_vocab": 10,
        "act_fn": "relu",
    }
    for given in (config, TransformerBridgeConfig(**config)):
        bridge = TransformerBridge.boot_native(given)
        assert bridge(torch.arange(4)[None]).shape == (1, 4, 10)
        assert all(p.requires_grad for p in bridge.parameters())


def test_encoders(tmp_path: Path) -> None:
    bert, tokens = boot("bert", "masked", tmp_path / "bert"), ids()
    hf = zoo.hugging_face("bert", "masked")
    types, mask = torch.ones_like(tokens), torch.tensor([[1, 1, 1, 1, 0, 0], [1] * 6])
    found = bert(tokens, token_type_ids=types, attention_mask=mask)
    assert close(found, hf(tokens, token_type_ids=types, attention_mask=mask).logits)
    assert {"embed.hook_out", "blocks.0.hook_resid_pre"} <= set(bert.run_with_cache(tokens)[1])
    pretraining = boot("bert", "pretraining", tmp_path / "pretraining")
    assert not isinstance(pretraining(tokens), torch.Tensor)
    t5, target = boot("t5", "plain", tmp_path / "t5"), tokens[:, :3]
    said = zoo.hugging_face("t5", "plain")(tokens, decoder_input_ids=target).logits
    assert close(t5(tokens, decoder_input=target), said)
    cache = t5.run_with_cache(tokens, decoder_input=target)[1]
    assert {"encoder_blocks.0.hook_resid_pre", "decoder_blocks.0.hook_resid_pre"} <= set(cache)
