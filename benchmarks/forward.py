"""What it costs to run a model, to read one activation, and to read them all."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.measuring import Row, Work, ratios
from benchmarks.models import Twins, prompts, twins
from lens.progress import Progress, silent

TITLE = "Running a model"
UNIT = "× a Hugging Face forward"
GOALS = {"smollm2": {"idle": 1.02, "one site": 1.03, "all sites": 1.25}, "tiny": {}}
ABOUT = (
    "CPU time of one run in multiples of a Hugging Face forward (fused attention) of the same 8 prompts. "
    "`bridge` is TransformerLens's TransformerBridge on the same weights."
)


def measure(*, quick: bool = False, progress: Progress = silent) -> list[Row]:
    """Figures for SmolLM2 and for a tiny model."""
    rows = []
    for name, rounds, inner in (("smollm2", 3 if quick else 15, 1), ("tiny", 5 if quick else 25, 15)):
        t, ids = twins(name), prompts(name)
        check(t, ids)
        with torch.no_grad():
            found = ratios(
                lambda t=t, ids=ids: t.forward(ids), cases(t, ids), rounds,
                times=inner if name == "tiny" else 1, inner=inner, progress=progress,
            )  # fmt: skip
        rows += [r.row("forward", name, case, UNIT, GOALS[name].get(case)) for case, r in found.items()]
    return rows


def check(t: Twins, ids: Tensor) -> None:
    """All three compute the same, or comparing their times means nothing."""
    expected = t.forward(ids)
    found = [t.model(ids)] if t.bridge is None else [t.model(ids), t.bridge(ids)]
    for logits in found:
        error = ((logits - expected).abs().max() / expected.abs().max()).item()
        if error > 1e-4:
            raise ValueError(f"{t.name}: logits differ from Hugging Face's by {error:.1e} of their scale")


def cases(t: Twins, ids: Tensor) -> dict[str, Work]:
    """What is timed, by name."""
    model, half = t.model, t.model.cfg.n_layers // 2
    site, pattern = f"blocks.{half}.hook_resid_post", f"blocks.{half}.attn.hook_pattern"
    middle = model(ids, stop_at_layer=half)
    ours: dict[str, Work] = {
        "idle": lambda: model(ids),
        "one site": lambda: model.run_with_cache(ids, site),
        "one pattern": lambda: model.run_with_cache(ids, pattern),
        "all patterns": lambda: model.run_with_cache(ids, "pattern"),
        "all sites": lambda: model.run_with_cache(ids),
        "stop at L/2": lambda: model(ids, stop_at_layer=half),
        "start at L/2": lambda: model(middle, start_at_layer=half),
        "last position's logits": lambda: model(ids, logits_at=-1),
    }
    if t.bridge is None:
        return ours
    return ours | {
        "bridge: idle": lambda: t.bridge(ids),
        "bridge: one site": lambda: t.bridge.run_with_cache(ids, names_filter=[site]),
        "bridge: all sites": lambda: t.bridge.run_with_cache(ids),
    }
