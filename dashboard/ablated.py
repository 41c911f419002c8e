"""One head taken away: what then comes next, and what becomes of the metric. No Streamlit: this runs in jobs.

Letters: n pair, p position, h head, e d_head, k of the most likely tokens, t token asked about.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from circuits.averages import means
from circuits.patch import patch

if TYPE_CHECKING:
    from circuits.pairs import Pairs
    from lens.model import Transformer

ZERO, MEAN, COUNTERFACTUAL = "zero", "mean", "counterfactual"
TOP = 8


@dataclass(frozen=True)
class Ablated:
    """What comes next with and without a head: the tokens that are among the most likely in either, and others asked
    about, with their probabilities [t].

    `metric`, `change` [n]: of each pair, with the head, and by how much it changes without; empty without pairs.
    """

    tokens: NDArray[np.int64]
    before: NDArray[np.float32]
    after: NDArray[np.float32]
    metric: NDArray[np.float32]
    change: NDArray[np.float32]


def kinds(pairs: Pairs | None) -> list[str]:
    """What a head's output can be replaced by."""
    return [*([] if pairs is None else [COUNTERFACTUAL]), MEAN, ZERO]


@torch.no_grad()
def ablate(
    model: Transformer,
    ids: Sequence[int],
    layer: int,
    head: int,
    kind: str,
    *,
    position: int,
    corrupt: Sequence[int] | None = None,
    pairs: Pairs | None = None,
    metric: str = "logit_diff",
    asked: Sequence[int] = (),
) -> Ablated:
    """Replace a head's z at every position of a prompt, and read what comes after `position`.

    Args:
        corrupt: the counterfactual prompt, for that kind.
        pairs: pairs whose metric is measured too, and over whose clean prompts the mean is taken; without any, the
            mean is over the positions of this prompt.

    Raises:
        ValueError: as `circuits.patch`, or a counterfactual is asked for without one.
    """
    site = model.block(layer).attn.hook_z
    value = _value(model, ids, site, kind, corrupt, pairs)

    def replace(z: Tensor, hook: object) -> Tensor:
        z = z.clone()
        z[:, :, head] = value[:, :, head].to(z.dtype)
        return z

    tokens = torch.tensor([list(ids)])
    before, after = (
        model.run_with_hooks(tokens, hooks, logits_at=position)[0, 0].float().softmax(-1).cpu()
        for hooks in ([], [(site, replace)])
    )
    k = min(TOP, len(before))
    shown = [*before.topk(k).indices.tolist(), *after.topk(k).indices.tolist(), *asked]
    found = torch.tensor(sorted(set(shown), key=lambda i: -float(before[i])))
    values = change = np.zeros(0, np.float32)
    if pairs is not None:
        effect = patch(model, pairs, "z", metric, units=[(layer, head)], ablation=kind)
        values, change = effect.clean.float().numpy(), effect.per_example[layer, head].float().numpy()
    return Ablated(found.numpy(), before[found].numpy(), after[found].numpy(), values, change)


def _value(
    model: Transformer,
    ids: Sequence[int],
    site: str,
    kind: str,
    corrupt: Sequence[int] | None,
    pairs: Pairs | None,
) -> Tensor:
    """What stands in for z, [1, p or 1, h, e]."""
    if kind == COUNTERFACTUAL:
        if corrupt is None or len(corrupt) != len(ids):
            raise ValueError("there is no counterfactual prompt of equally many tokens")
        return model.activations(torch.tensor([list(corrupt)]), [site])[site]
    if kind == MEAN:
        if pairs is not None:
            return means(model, pairs, [site], by_position=False)[site][None]
        return model.activations(torch.tensor([list(ids)]), [site])[site].mean(1, keepdim=True)
    z = model.activations(torch.tensor([list(ids)]), [site])[site]
    return torch.zeros_like(z[:, :1])
