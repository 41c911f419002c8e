"""What every head does for the metric, as the Heads page ranks it. No Streamlit: this runs in jobs.

Letters: n pair, l layer, h head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from circuits.head_table import head_table
from circuits.logit_attribution import logit_attribution
from circuits.patch import patch
from circuits.places import head_name
from dashboard import pieces
from lens.progress import Progress, silent

if TYPE_CHECKING:
    from circuits.pairs import Pairs
    from lens.model import Transformer


@dataclass(frozen=True)
class Effect:
    """A number per head that needs a pair of prompts: its name on the page, and what it is."""

    field: str
    title: str
    about: str


EFFECTS = (
    Effect("ablation", "ablation effect", "change of the metric when the head gets its counterfactual value"),
    Effect("direct", "direct effect", "the head's own share of the logit difference, through the final norm"),
    Effect(
        "mover",
        "name-mover attention",
        "attention from the last position to earlier tokens that are an answer",
    ),
    Effect(
        "copying", "copying", "does the head raise the logit of what it attends to? 1 always, −1 the opposite"
    ),
)


@dataclass(frozen=True)
class HeadEffects:
    """Numbers [l, h], means over the pairs; NaN where these pairs or this model do not have them.

    `ablation` is in units of the metric, `direct` in logits; `mover` is a share of attention; `copying` from −1 to 1.
    """

    ablation: NDArray[np.float32]
    direct: NDArray[np.float32]
    mover: NDArray[np.float32]
    copying: NDArray[np.float32]


def head_effects(model: Transformer, pairs: Pairs, metric: str, progress: Progress = silent) -> HeadEffects:
    """Every head ablated once, exactly; and what each writes, attends to and copies, from single runs.

    Raises:
        ValueError: the pairs do not fit the model or the metric.
    """
    layers, heads = model.cfg.n_layers, model.cfg.n_heads
    unknown = np.full((layers, heads), np.nan, np.float32)
    direct = mover = copying = unknown
    if not ("add" in model.cfg.stack.norm_placement and model.cfg.stack.norm != "none"):
        progress(0, 1, "what heads write")
        shares = logit_attribution(model, pairs).mean
        direct = np.array(
            [[shares[head_name(l, h)] for h in range(heads)] for l in range(layers)], np.float32
        )
        if bool((pairs.wrong >= 0).any(-1).all()):
            features = head_table(model, pairs).features
            mover, copying = features["END→answer"].numpy(), features["copying"].numpy()
    most = pieces.held(model, pieces.EXACT)
    ablation = patch(model, pairs, "z", metric, max_memory=most, progress=progress).effect.float().numpy()
    return HeadEffects(ablation, direct, mover, copying)
