"""What an encoder–decoder is about to say, and what an encoder makes of a text. No Streamlit: this runs in jobs.

Letters: p position, k of the most likely tokens, v vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from dashboard import outcomes
from dashboard.scene import generated, read_text
from lens.inputs import ModelInputs

if TYPE_CHECKING:
    from dashboard.scene import Scene

TOP = 10


@dataclass(frozen=True, eq=False)
class Said:
    """What the decoder is about to say at each of its positions, having read the target so far.

    `top` [p, k] with `probs` [p, k]; `expected` [p]: the probability of the token that the target has there.
    """

    top: NDArray[np.int64]
    probs: NDArray[np.float32]
    expected: NDArray[np.float32]


@torch.no_grad()
def said(scene: Scene, *, other: bool = False) -> Said:
    """The decoder's predictions on the scene, or on its counterfactual source with the same target."""
    inputs = scene.other if other else scene.inputs
    assert inputs is not None
    probs = scene.model(inputs)[0].float().softmax(-1).cpu()
    best = probs.topk(min(TOP, probs.shape[-1]))
    own = probs.gather(-1, torch.tensor(scene.said)[:, None])[:, 0]
    return Said(best.indices.numpy(), best.values.numpy(), own.numpy())


def generation(scene: Scene, *, other: bool = False) -> str:
    """What the model itself says to the source, or to the counterfactual one."""
    inputs = scene.other if other else scene.inputs
    assert inputs is not None and isinstance(inputs.source, ModelInputs)
    ids = generated(scene.model, inputs.source)
    return " ".join(text.strip() for text in scene.model.to_str_tokens(ids))


@torch.no_grad()
def masked(scene: Scene, position: int) -> tuple[NDArray[np.int64], NDArray[np.float32], int]:
    """The likeliest tokens [k] where the token at a position is masked, their probabilities [k], and the rank of the
    token that stands there, from 0.

    Raises:
        ValueError: the tokenizer has no token for masks.
    """
    model, ids = scene.model, scene.inputs.ids
    assert ids is not None
    mask = None if model.tokenizer is None else model.tokenizer.mask_id
    if mask is None:
        raise ValueError(f"the tokenizer of {model.name} has no mask")
    hidden = ids.clone()
    hidden[0, position] = mask
    inputs = ModelInputs(ids=hidden, mask=scene.inputs.mask, types=scene.inputs.types)
    probs = model(inputs, logits_at=position)[0, 0].float().softmax(-1).cpu()
    best = probs.topk(min(TOP, len(probs)))
    rank = int((probs > probs[int(ids[0, position])]).sum())
    return best.indices.numpy(), best.values.numpy(), rank


def similarity(scene: Scene) -> float:
    """The cosine of the vectors of the text and of its counterfactual, which may have another number of tokens.

    Raises:
        ValueError: there is no counterfactual text, or it cannot be read.
    """
    if not scene.other_text.strip():
        raise ValueError("there is no counterfactual text")
    other = scene.other if scene.other is not None else read_text(scene.model, scene.other_text, scene.second)
    return outcomes.cosine(outcomes.vector(scene.model, scene.inputs), outcomes.vector(scene.model, other))
