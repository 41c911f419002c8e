"""What a scene is judged by, with and without a head: classes, what is said, or the vector of a text. No Streamlit.

- An image: the logit of the answer's class above that of the wrong one (or its log-probability); each class's
  probability.
- A source and its target: the log-probability of the target, in nats; that of each of its tokens.
- A text: the cosine between its vector and the vector that the whole model makes of it, 1 where nothing changed;
  beside it that with the counterfactual's vector.

Letters: h head, e d_head, p position, l layer, t part of the outcome, d d_model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dashboard.head_groups import Group
from dashboard.kinds import SEQ2SEQ, VISION
from lens.progress import Progress, silent
from lens.taps import OFF, Edits, Taps

if TYPE_CHECKING:
    from dashboard.scene import Scene
    from lens.inputs import ModelInputs
    from lens.model import Transformer

ZERO, MEAN, COUNTERFACTUAL = "zero", "mean", "counterfactual"


@dataclass(frozen=True, eq=False)
class Outcome:
    """One run's `total`, and its `parts` [t] with their names."""

    total: float
    parts: NDArray[np.float32]
    names: tuple[str, ...]


@dataclass(frozen=True)
class Judged:
    """What a scene's outcome is called: of its total, of its parts, and what a share of the total means."""

    total: str
    part: str
    parts: str
    probability: bool


def judged(scene: Scene) -> Judged:
    """The words for a scene's outcome."""
    if scene.kind == SEQ2SEQ:
        return Judged("log-probability of the target", "token said", "log-probability", False)
    if scene.kind == VISION and scene.classes:
        assert scene.answer is not None
        answer = scene.classes[scene.answer]
        total = f"log-probability of {answer}"
        if scene.wrong is not None:
            total = f"logit of {answer} above {scene.classes[scene.wrong]}"
        return Judged(total, "class", "probability", True)
    return Judged("cosine with the unchanged vector", "vector", "cosine", False)


def kinds(scene: Scene) -> list[str]:
    """What a head's output can be replaced by."""
    return [*([] if scene.other is None else [COUNTERFACTUAL]), MEAN, ZERO]


@torch.no_grad()
def outcome(scene: Scene, edits: Edits | None = None) -> Outcome:
    """The outcome of one run, with edits."""
    model = scene.model
    taps = OFF if edits is None else Taps(edits=edits)
    if scene.kind == SEQ2SEQ:
        said = torch.tensor(scene.said, device=model.device)
        logits = model(scene.inputs, taps=taps)[0].float().log_softmax(-1)
        found = logits.gather(-1, said[:, None])[:, 0].cpu()
        names = tuple(model.to_str_tokens(list(scene.said)))
        return Outcome(float(found.sum()), found.numpy(), names)
    if scene.kind == VISION and scene.classes:
        logits = model(scene.inputs, taps=taps)[0].float().cpu()
        assert scene.answer is not None
        total = logits.log_softmax(-1)[scene.answer]
        if scene.wrong is not None:
            total = logits[scene.answer] - logits[scene.wrong]
        return Outcome(float(total), logits.softmax(-1).numpy(), scene.classes)
    whole, now = vector(model, scene.inputs), vector(model, scene.inputs, edits)
    values, names = [cosine(now, whole)], ["itself, unchanged"]
    if scene.other is not None:
        values.append(cosine(now, vector(model, scene.other)))
        names.append("the counterfactual")
    return Outcome(values[0], np.array(values, np.float32), tuple(names))


@torch.no_grad()
def vector(model: Transformer, inputs: ModelInputs, edits: Edits | None = None) -> Tensor:
    """One vector per input, [d]: where the model reads a text's vector at its end (CLIP) its own, or else the mean
    of the last stream after its norm."""
    taps = Taps(edits=edits)
    pooler = model.cfg.pooler
    if pooler is not None and pooler.at in ("token", "highest"):
        cache = model.run_with_cache(inputs, ["pooler_out"], edits=edits)[1]
        return cache["pooler.hook_pooler_out"][0].float().cpu()
    stream = model(inputs, taps=taps, stop_at_layer=model.cfg.n_layers)
    if model.ln_final is not None:
        stream = model.ln_final(stream)
    return stream[0].float().mean(0).cpu()


def cosine(a: Tensor, b: Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(a, b, dim=0))


def without(scene: Scene, group: Group, layer: int, head: int, kind: str) -> Edits:
    """Edits that replace a head's z at every position: by its counterfactual value, its mean over the positions of
    this run, or zero.

    Raises:
        ValueError: a counterfactual is asked for and there is none.
    """
    site = group.site(layer, "hook_z")
    value: Tensor | None = None
    if kind == COUNTERFACTUAL:
        if scene.other is None:
            raise ValueError(scene.why)
        value = scene.model.activations(scene.other, [site])[site][:, :, head]
    elif kind == MEAN:
        value = scene.model.activations(scene.inputs, [site])[site][:, :, head].mean(1, keepdim=True)

    def replace(z: Tensor) -> Tensor:
        z = z.clone()
        z[:, :, head] = 0.0 if value is None else value.to(z.dtype)
        return z

    return {site: replace}


def ablate(scene: Scene, group: Group, layer: int, head: int, kind: str) -> tuple[Outcome, Outcome]:
    """The outcome with a head, and without it."""
    return outcome(scene), outcome(scene, without(scene, group, layer, head, kind))


def effects(scene: Scene, kind: str, progress: Progress = silent) -> Mapping[str, NDArray[np.float32]]:
    """By how much the total changes without each head, by group letter [l, h]."""
    before, found, done = outcome(scene).total, {}, 0
    every = sum(group.layers * group.heads for group in scene.groups)
    for group in scene.groups:
        values = np.zeros((group.layers, group.heads), np.float32)
        for layer, head in np.ndindex(values.shape):
            progress(done, every, "head")
            values[layer, head] = outcome(scene, without(scene, group, layer, head, kind)).total - before
            done += 1
        found[group.letter] = values
    return found
