"""Figures of `benchmarks.probing` that want a process of their own: peak memory, and scikit-learn on tensors."""

from __future__ import annotations

import gc
import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.probing import (
    ALPHAS,
    LAYERS,
    MEMORY,
    compare,
    data,
    features,
    ours,
    permutations,
    search_ours,
)


def figure(case: str) -> float | None:
    """A ratio or megabytes, by the name of the row; None where scikit-learn does not take tensors."""
    import torch
    from threadpoolctl import threadpool_limits

    from probes.batched import Problem, fit_many

    torch.set_num_threads(1)
    _, y, targets = data()
    x, z = features(f"blocks.{LAYERS[1]}.hook_resid_post")
    ridge = lambda: fit_many("ridge", x, [Problem(targets)], options={"alphas": ALPHAS})  # noqa: E731
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if case in MEMORY:
            work = {
                MEMORY[0]: lambda: search_ours(x, y),
                MEMORY[1]: ridge,
                MEMORY[2]: lambda: ours(x, [Problem(p) for p in permutations(y)]),
            }[case]
            return _peak(work)
        return _array_api(case, z, y, targets, lambda: ours(x, [Problem(y)]), ridge)


def _array_api(
    case: str,
    z: np.ndarray,
    y: np.ndarray,
    targets: np.ndarray,
    logistic: Callable[[], object],
    ridge: Callable[[], object],
) -> float | None:
    import sklearn
    import torch
    from sklearn.linear_model import LogisticRegression, RidgeCV

    tensor, label = torch.from_numpy(z), torch.from_numpy(y)
    wide, goal = tensor.double(), torch.from_numpy(targets)
    with sklearn.config_context(array_api_dispatch=True):
        if "ridge" in case:
            theirs, mine = lambda: RidgeCV(ALPHAS).fit(wide, goal), ridge
        else:
            theirs, mine = lambda: LogisticRegression(tol=1e-5, max_iter=5000).fit(tensor, label), logistic
        try:
            fitted: Any = theirs()
        except (TypeError, ValueError):
            return None
        return None if not isinstance(fitted.coef_, torch.Tensor) else 1 / compare(theirs, mine, 3).median


def _peak(work: Callable[[], object]) -> float:
    """Megabytes that are needed beyond what is resident before, the second time it runs."""
    from benchmarks.memory import status, trim

    work()
    gc.collect()
    trim()
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    work()
    return round((status("VmHWM") - before) / 1000, 1)


if __name__ == "__main__":
    print(json.dumps(figure(sys.argv[1])))
