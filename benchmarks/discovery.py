"""What it costs to attribute all edges, to evaluate a circuit, and to patch everywhere."""

from __future__ import annotations

from benchmarks.measuring import Row, Work, ratios
from benchmarks.models import hugging_face, ioi, smollm2
from circuits import Pairs, attribute, evaluate, patch
from lens.progress import Progress, silent

TITLE = "Finding circuits"
UNIT = "× a Hugging Face forward"
EDGES = 1_000
GOALS = {"EAP": 6, "EAP-IG, 5 steps": 20, "evaluate 1,000 edges": 4, "heads": 150, "layer × position": 100}
ABOUT = (
    "SmolLM2, 8 IOI prompts, in multiples of a Hugging Face forward of the clean prompts. Where pairs differ at "
    "the second subject only, most of each prompt is shared and run once; the goals are for these. Where all three "
    "names differ nearly nothing is shared, as with `share_prefix=False`."
)
SETTINGS = {"second subject differs": "abc", "all names differ": "fresh"}


def measure(*, quick: bool = False, progress: Progress = silent) -> list[Row]:
    """Figures for pairs that share most of their tokens, and for pairs that share few."""
    import torch

    hf, rows = hugging_face(smollm2()), []

    def forward(ids: torch.Tensor) -> None:
        with torch.no_grad():
            hf(ids, use_cache=False)

    for setting, corruption in SETTINGS.items():
        pairs = ioi(corruption)
        rounds = dict(zip(GOALS, (1, 1, 1, 1, 1) if quick else (7, 5, 7, 3, 3), strict=True))
        found = ratios(
            lambda pairs=pairs: forward(pairs.clean), cases(pairs), rounds, times=3, progress=progress
        )
        goals = GOALS if corruption == "abc" else {}
        rows += [r.row("discovery", setting, case, UNIT, goals.get(case)) for case, r in found.items()]
    return rows


def cases(pairs: Pairs) -> dict[str, Work]:
    """What is timed, by name."""
    model = smollm2()
    circuit = attribute(model, pairs, method="eap").top(EDGES)
    return {
        "EAP": lambda: attribute(model, pairs, method="eap"),
        "EAP-IG, 5 steps": lambda: attribute(model, pairs, method="eap-ig", steps=5),
        "evaluate 1,000 edges": lambda: evaluate(model, pairs, circuit),
        "heads": lambda: patch(model, pairs, site="z"),
        "layer × position": lambda: patch(model, pairs, site="resid_pre"),
    }
