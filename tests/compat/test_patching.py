"""`patching` by TransformerLens's names, against the values that TransformerLens 2.18 gave on the same weights."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from circuits import act_patches
from lens import HookedTransformer, HookedTransformerConfig

HERE = Path(__file__).parent


def _module(name: str) -> Any:
    """A file of this folder under its own name, as the recording script has it."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
        assert spec is not None and spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


calls = _module("calls")
calls_patching = _module("calls_patching")


def model_of(name: str, processed: bool = False) -> HookedTransformer:
    """A model with the weights that were recorded."""
    stem = HERE / "reference" / f"{name}{'-processed' if processed else ''}.safetensors"
    weights = {n.removeprefix("weights/"): x for n, x in load_file(stem).items() if n.startswith("weights/")}
    config = dict(calls.CONFIGS[name])
    if processed:
        config["normalization_type"] += "Pre"
    model = HookedTransformer(HookedTransformerConfig(**config, device="cpu"))
    model.load_state_dict(weights, strict=False)
    return model


@pytest.mark.parametrize("processed", [False, True])
@pytest.mark.parametrize("name", calls_patching.MODELS)
def test_every_function_gives_what_transformerlens_gave(name: str, processed: bool) -> None:
    about = f"{name}{'-processed' if processed else ''}/"
    recorded = load_file(HERE / "reference" / "patching.safetensors")
    want = {key.removeprefix(about): x for key, x in recorded.items() if key.startswith(about)}
    found = calls_patching.of_patching(model_of(name, processed), act_patches)
    assert found.keys() == want.keys()
    for key, x in found.items():
        torch.testing.assert_close(
            x.float(), want[key], rtol=0, atol=1e-5, msg=lambda text, key=key: f"{key}: {text}"
        )


def count_rows(model: HookedTransformer, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Tokens times blocks that are run from now on, one number per block's run."""
    rows: list[int] = []
    kind = type(model.block(0))
    first = kind.first

    def counted(self: Any, x: Tensor, *args: Any, **options: Any) -> Tensor:
        rows.append(x.shape[0] * x.shape[1])
        return first(self, x, *args, **options)

    monkeypatch.setattr(kind, "first", counted)
    return rows


def test_what_is_above_and_after_the_patch_is_all_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("gpt2")
    clean = model.run_with_cache(calls.ids())[1]
    rows = count_rows(model, monkeypatch)
    act_patches.get_act_patch_resid_pre(model, calls_patching.corrupted(), clean, calls_patching.metric)
    b, p, layers = 2, 4, 2
    whole = layers * b * p  # one run
    # position 0 is the same in both; from position t on, p - t positions; patches of layer 1 do without layer 0
    patches = sum(b * (p - t) * (1 + 2) for t in range(1, p))
    last_bit = b * p  # position 0 of layer 1, which another batch may compute otherwise in its last bit
    assert whole + patches <= sum(rows) <= whole + patches + last_bit
    assert sum(rows) < 0.5 * whole * layers * p


def test_hooks_that_stand_on_the_model_count() -> None:
    model = model_of("gpt2")
    clean = model.run_with_cache(calls.ids())[1]
    given = (model, calls_patching.corrupted(), clean, calls_patching.metric)
    without = act_patches.get_act_patch_attn_out(*given)
    model.add_hook("blocks.0.hook_mlp_out", lambda x, hook: x * 0)
    found = act_patches.get_act_patch_attn_out(*given)
    model.reset_hooks()
    assert not torch.allclose(found, without)

    def put(x: Tensor, hook: Any) -> Tensor:
        x = x.clone()
        x[:, 2] = clean["attn_out", 1][:, 2]
        return x

    hooks = [("blocks.0.hook_mlp_out", lambda x, hook: x * 0), ("blocks.1.hook_attn_out", put)]
    one = calls_patching.metric(model.run_with_hooks(calls_patching.corrupted(), fwd_hooks=hooks))
    torch.testing.assert_close(found[1, 2], one.detach(), rtol=0, atol=1e-6)


def test_what_is_asked_wrongly_is_told() -> None:
    model = model_of("gpt2")
    clean = model.run_with_cache(calls.ids())[1]
    given = (model, calls.ids(), clean, calls_patching.metric, act_patches.layer_pos_patch_setter)
    with pytest.raises(ValueError, match="either index_axis_names or index_df"):
        act_patches.generic_activation_patch(*given, "resid_pre")
    with pytest.raises(ValueError, match="'position' is not a known axis; did you mean"):
        act_patches.generic_activation_patch(*given, "resid_pre", ("layer", "position"))
    with pytest.raises(ValueError, match="did you mean"):
        act_patches.generic_activation_patch(*given, "resid_prae", ("layer", "pos"))
