"""Hugging Face's numbers and ours, side by side, on the specimens of `tests/zoo.py`.

Errors are relative to the largest value of the oracle's tensor, over positions that are not padding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

import lens.families
from lens.family import read
from lens.model import Transformer
from lens.registry import names
from tests import zoo

FAMILIES = names(lens.families)
SPECIMENS = [(family, name) for family in FAMILIES for name in zoo.ZOO.get(family, {})]
CLOSE, EXACT = 1e-5, 1e-10
N_POS = 13

each_specimen = pytest.mark.parametrize(("family", "name"), SPECIMENS, ids=[f"{f}-{n}" for f, n in SPECIMENS])


@cache
def ours(family: str, name: str, dtype: torch.dtype = torch.float32) -> Transformer:
    hf = zoo.hugging_face(family, name, dtype)
    return Transformer.from_state(*read(hf.config.to_dict(), hf.state_dict()))


def prompts(n: int = 3) -> Tensor:
    return torch.randint(3, zoo.D_VOCAB, (n, N_POS), generator=torch.Generator().manual_seed(1))


def padding(side: str) -> Tensor | None:
    """True where a token is real: rows with 0, 4 and 9 positions of padding."""
    if side == "none":
        return None
    place = torch.arange(N_POS).expand(3, -1)
    n = torch.tensor([[0], [4], [9]])
    return place < N_POS - n if side == "right" else place >= n


@dataclass
class Seen:
    """What one run of one model shows, by name."""

    tensors: dict[str, Tensor]

    def error(self, oracle: Seen, real: Tensor | None) -> float:
        """The largest error of any tensor, relative to its scale, over rows that are not padding."""
        assert self.tensors.keys() == oracle.tensors.keys()
        return max(relative_error(x, oracle.tensors[name], real) for name, x in self.tensors.items())


def relative_error(x: Tensor, oracle: Tensor, real: Tensor | None = None) -> float:
    assert x.shape == oracle.shape
    if x.ndim == 4:  # patterns: [b, h, p, k] -> [b, p, h, k]
        x, oracle = x.transpose(1, 2), oracle.transpose(1, 2)
    if real is not None:
        x, oracle = x[real], oracle[real]
    return ((x - oracle).abs().max() / oracle.abs().max()).item()


@contextmanager
def watched(modules: Any, seen: dict[str, Tensor]) -> Iterator[None]:
    """Record the output of each Hugging Face layer as resid_post."""

    def record(layer: int) -> Callable[..., None]:
        def hook(module: Any, args: Any, output: Any) -> None:
            seen[f"resid_post {layer}"] = output[0] if isinstance(output, tuple) else output

        return hook

    handles = [module.register_forward_hook(record(layer)) for layer, module in enumerate(modules)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def oracle(hf: Any, ids: Tensor, real: Tensor | None, attention: str) -> Seen:
    """Hugging Face's logits, residual stream around every block, and (eager) patterns."""
    layers = next(m for m in hf.modules() if isinstance(m, torch.nn.ModuleList))
    seen: dict[str, Tensor] = {}
    options: dict[str, Any] = {"output_hidden_states": True, "output_attentions": attention == "eager"}
    if real is not None:
        options["attention_mask"] = real.long()
        options["position_ids"] = (real.long().cumsum(-1) - 1).clamp(min=0)
    hf.set_attn_implementation(attention)
    try:
        with watched(layers, seen), torch.no_grad():
            out = hf(ids, use_cache=False, **options)
    finally:
        hf.set_attn_implementation("eager")
    seen["logits"] = out.logits
    seen |= {f"resid_pre {layer}": x for layer, x in enumerate(out.hidden_states[: len(layers)])}
    if attention == "eager":
        seen |= {f"pattern {layer}": x for layer, x in enumerate(out.attentions)}
    return Seen(seen)


def shown(model: Transformer, ids: Tensor, real: Tensor | None, attention: str) -> Seen:
    """The same of ours: `eager` taps patterns, so attention is explicit; `sdpa` does not."""
    after = "normalized_resid_post" if "add" in model.cfg.stack.norm_placement else "resid_post"
    wanted = ["resid_pre", after, *(["pattern"] if attention == "eager" else [])]
    logits, cache = model.run_with_cache(ids, wanted, attention_mask=real)
    seen = {"logits": logits}
    for layer in range(model.cfg.n_layers):
        seen[f"resid_pre {layer}"] = cache["resid_pre", layer]
        seen[f"resid_post {layer}"] = cache[after, layer]
        if attention == "eager":
            seen[f"pattern {layer}"] = cache["pattern", layer]
    return Seen(seen)


def worst(model: Transformer, hf: Any, side: str = "none", attention: str = "eager") -> float:
    """The largest relative error of ours against Hugging Face in one setting."""
    ids, real = prompts(), padding(side)
    return shown(model, ids, real, attention).error(oracle(hf, ids, real, attention), real)


def has_sdpa(hf: Any) -> bool:
    return bool(hf._supports_sdpa)
