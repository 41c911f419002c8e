"""`lens.compat.install()`: what `transformer_lens` means before, with it, and afterwards."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import lens
import lens.compat

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

CONFIG: dict[str, Any] = {
    "n_layers": 2, "d_model": 16, "n_ctx": 12, "d_head": 4, "n_heads": 4, "d_mlp": 16, "d_vocab": 20,
    "act_fn": "gelu_new", "normalization_type": "LN", "device": "cpu", "seed": 1,
}  # fmt: skip


@pytest.fixture
def installed() -> Iterator[None]:
    lens.compat.install(quiet=True)
    yield
    lens.compat.uninstall()


def test_names_of_all_old_places_are_ours(installed: None) -> None:
    import transformer_lens
    import transformer_lens.HookedTransformer
    import transformer_lens.utils as named_utils
    from transformer_lens import (
        ActivationCache,
        FactoredMatrix,
        HookedTransformer,
        HookedTransformerConfig,
        patching,
        utils,
    )
    from transformer_lens.hook_points import HookedRootModule, HookPoint
    from transformer_lens.HookedTransformer import HookedTransformer as Again
    from transformer_lens.utils import get_act_name, to_numpy

    from circuits import act_patches

    assert HookedTransformer is Again is lens.HookedTransformer is transformer_lens.HookedTransformer
    assert HookedTransformerConfig is lens.HookedTransformerConfig
    assert ActivationCache is lens.compat.ActivationCache and FactoredMatrix is lens.compat.FactoredMatrix
    assert patching is act_patches and utils is named_utils
    assert (
        get_act_name("k", 6, "a") == "blocks.6.attn.hook_k"
        and get_act_name("pre3") == "blocks.3.mlp.hook_pre"
    )
    assert to_numpy(torch.ones(2)).tolist() == [1, 1]
    model = HookedTransformer(HookedTransformerConfig(**CONFIG))
    assert isinstance(model.blocks[0].attn.hook_z, HookPoint)

    class Own(HookedRootModule):
        def __init__(self) -> None:
            super().__init__()
            self.hook_in = HookPoint()
            self.setup()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.hook_in(x) * 2

    assert Own().run_with_hooks(torch.ones(1), fwd_hooks=[("hook_in", lambda x, hook: x + 1)]).item() == 4


def test_it_can_be_undone_and_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    import transformer_lens

    before = (
        dict(vars(transformer_lens)),
        {k: v for k, v in sys.modules.items() if k.startswith("transformer_lens")},
    )
    for _ in range(2):
        lens.compat.install()
    told = capsys.readouterr().out
    assert told.count("\n") == 1 and "are now those of lens.compat" in told
    assert lens.compat.installed()
    lens.compat.uninstall()
    lens.compat.uninstall()
    assert not lens.compat.installed()
    after = dict(vars(transformer_lens)), {k: sys.modules.get(k) for k in before[1]}
    assert before == after and "transformer_lens.utils" not in sys.modules
    with pytest.raises(ImportError, match="removed in TransformerLens 4"):
        from transformer_lens import HookedTransformer  # noqa: F401


@pytest.mark.slow
def test_importing_everything_here_installs_nothing() -> None:
    code = "import lens, lens.compat, circuits, probes, sys; assert 'transformer_lens' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_svd_interpretation_and_head_detection_work_on_our_model(installed: None) -> None:
    from transformer_lens import HookedTransformer, HookedTransformerConfig, SVDInterpreter
    from transformer_lens.head_detector import detect_head

    model = HookedTransformer(HookedTransformerConfig(**CONFIG))
    found = SVDInterpreter(model).get_singular_vectors("OV", layer_index=1, head_index=2, num_vectors=3)
    _, _, vh = torch.linalg.svd(model.W_V[1, 2] @ model.W_O[1, 2])
    want = (vh[:3] @ model.W_U).T  # [v, 3]
    found = found.squeeze(1)
    torch.testing.assert_close(found, want * torch.sign((found * want).sum(0)), rtol=0, atol=1e-4)
    ids = torch.tensor([[1, 5, 9, 5, 3, 9]])
    cache = model.run_with_cache(ids, remove_batch_dim=True)[1]
    words = [" a", " b"]
    model.to_tokens = lambda text, prepend_bos=None: ids  # type: ignore[method-assign]
    score = detect_head(model, "".join(words), "previous_token_head", cache=cache, error_measure="mul")
    pattern = cache["pattern", 1][3].tril()
    torch.testing.assert_close(score[1, 3], pattern.diagonal(-1).sum() / pattern.sum(), rtol=0, atol=2e-3)


def test_a_module_in_a_hook_points_place_is_called_there() -> None:
    """As tools do that put wrappers around hook points."""
    model = lens.HookedTransformer(lens.HookedTransformerConfig(**CONFIG))
    ids = torch.tensor([[1, 5, 9, 5]])

    class Scaled(torch.nn.Module):
        def __init__(self, inner: Any) -> None:
            super().__init__()
            self.inner, self.by = inner, torch.nn.Parameter(torch.tensor(0.5))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x) * self.by

    places = [
        (model.blocks[0].attn, "hook_result"),
        (model.blocks[1], "hook_q_input"),
        (model.blocks[1], "hook_mlp_in"),
    ]
    sites = ["blocks.0.attn.hook_result", "blocks.1.hook_q_input", "blocks.1.hook_mlp_in"]
    plain = model(ids)
    hooks = [(site, lambda x, hook: x * 0.5) for site in sites]
    want = model.run_with_hooks(ids, fwd_hooks=hooks)
    for part, name in places:
        setattr(part, name, Scaled(getattr(part, name)))
    found = model(ids)
    torch.testing.assert_close(found, want)
    found.sum().backward()
    scales = [x for name, x in model.named_parameters() if name.endswith(".by")]
    assert len(scales) == 3 and all(x.grad is not None and x.grad.abs() > 0 for x in scales)
    assert not torch.allclose(plain, want)
    assert all(isinstance(getattr(part, name), Scaled) for part, name in places)
    for part, name in places:
        delattr(part, name)
        setattr(part, name, model.hook_dict[sites.pop(0)])
    torch.testing.assert_close(model(ids), plain)
