"""What a vision transformer makes of an image: its classes layer by layer, and who writes the answer. No Streamlit.

1. A classifier that reads the class token's normalised last stream can be applied to every earlier stream as well:
   what the model would say if it ended there (the logit lens, for images).
2. With the divisor of the final norm held fixed, the classifier is linear in the class token's stream. A part's share
   is the dot product of what it wrote there with the direction classifier[answer] − classifier[wrong], pulled back
   through the norm. Shares of embedding, heads, MLPs and biases add up to the difference of the two logits.
3. A patch that the answer depends on is found by taking it away: occlusion, one patch at a time.

Letters: l stream, c class, d d_model, h head, e d_head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lens.inputs import ModelInputs
from lens.taps import Taps

if TYPE_CHECKING:
    from dashboard.scene import Scene
    from lens.model import Transformer


def why_not(model: Transformer) -> str:
    """Why neither can be had of a model, "" where both can."""
    cfg = model.cfg
    if cfg.classifier is None:
        return f"{cfg.name} has no classifier"
    if cfg.pooler is not None:
        return f"the classifier of {cfg.name} reads a pooled vector, which is no sum of what the layers write"
    if "add" in cfg.stack.norm_placement:
        return f"{cfg.name} normalises the stream itself, which is then no sum of what the layers write"
    return ""


@torch.no_grad()
def class_lens(scene: Scene) -> NDArray[np.float32]:
    """Probabilities of the classes [l, c] read from the class token's stream before each block and after the last.

    Raises:
        ValueError: see `why_not`.
    """
    model = _able(scene)
    n = model.cfg.n_layers
    sites = [model.block(l).hook_resid_pre for l in range(n)] + [model.block(n - 1).hook_resid_post]
    cache = model.activations(scene.inputs, sites)
    streams = torch.stack([cache[site][0, :1] for site in sites])  # [l, 1, d]
    if model.ln_final is not None:
        streams = model.ln_final(streams)
    assert model.classifier is not None
    return model.classifier.linear(streams[:, 0]).float().softmax(-1).cpu().numpy()


@torch.no_grad()
def class_attribution(scene: Scene) -> dict[str, float]:
    """What each part itself writes to the answer's logit over the wrong one's (or over the mean of all classes).

    Names are those of nodes (`embed`, `a1.h2`, `m1`), then `a1.bias`, and last `bias`.

    Raises:
        ValueError: see `why_not`; or the scene has no answer.
    """
    model = _able(scene)
    if scene.answer is None:
        raise ValueError("there is no answer")
    assert model.classifier is not None
    n, norm = model.cfg.n_layers, model.ln_final
    last = model.block(n - 1).hook_resid_post
    reads = [model.block(0).hook_resid_pre, last, *([] if norm is None else [norm.hook_scale])]
    for layer in range(n):
        block = model.block(layer)
        reads += [block.attn.hook_z, *([] if block.mlp is None else [block.hook_mlp_out])]
        for post in (block.ln1_post, block.ln2_post):
            reads += [] if post is None else [post.hook_scale]
    taps = Taps(reads, keep=lambda site, x: x[0, 0].double())
    model(scene.inputs, taps=taps)
    seen, head = taps.seen, model.classifier.linear
    u = _towards(head.weight.double(), scene)
    bias = float(_towards(head.bias.double()[:, None], scene)[0])
    if norm is not None:
        bias += 0.0 if norm.bias is None else float(u @ norm.bias.double())
        u = norm.centre(u * norm.gain.double()) / seen[norm.hook_scale]
    found = {"embed": float(seen[model.block(0).hook_resid_pre] @ u)}
    for layer in range(n):
        block = model.block(layer)
        towards, own = u, 0.0
        if block.ln1_post is not None:
            post = block.ln1_post
            towards = post.centre(u * post.gain.double()) / seen[post.hook_scale]
            own = 0.0 if post.bias is None else float(u @ post.bias.double())
        shares = torch.einsum("he,hed,d->h", seen[block.attn.hook_z], block.attn.W_O.double(), towards)
        found |= {f"a{layer}.h{h}": float(share) for h, share in enumerate(shares)}
        found[f"a{layer}.bias"] = float(block.attn.b_O.double() @ towards) + own
        if block.mlp is not None:
            found[f"m{layer}"] = float(seen[block.hook_mlp_out] @ u)
    found["bias"] = bias
    return found


def _able(scene: Scene) -> Transformer:
    if why := why_not(scene.model):
        raise ValueError(why)
    return scene.model


def _towards(rows: Tensor, scene: Scene) -> Tensor:
    """A row of the classifier per class [c, d]: the answer's less the wrong one's, or less the mean of all."""
    against = rows.mean(0) if scene.wrong is None else rows[scene.wrong]
    return rows[scene.answer] - against


BLANK = "blank"


@torch.no_grad()
def occlusion(scene: Scene, by: str) -> NDArray[np.float32]:
    """By how much the outcome's total changes when one patch is blanked (all its pixels as the image's darkest), or
    takes the counterfactual image's, [patch]; one run of as many images as there are patches.

    (Zeiler and Fergus 2013, arXiv 1311.2901, §4.2.)

    Raises:
        ValueError: the counterfactual is asked for and there is none, or the scene has no answer.
    """
    picture, model = scene.picture, scene.model
    if scene.answer is None:
        raise ValueError("there is no answer")
    assert picture is not None and scene.inputs.image is not None
    image = scene.inputs.image
    if by == BLANK:
        other = torch.full_like(image, float(image.min()))
    elif scene.other is None or scene.other.image is None:
        raise ValueError(scene.why)
    else:
        other = scene.other.image
    n, (high, wide) = picture.rows * picture.columns, image.shape[-2:]
    at = torch.arange(n, device=image.device)
    rows = torch.arange(high, device=image.device) * picture.rows // high == (at // picture.columns)[:, None]
    columns = (
        torch.arange(wide, device=image.device) * picture.columns // wide == (at % picture.columns)[:, None]
    )
    inside = (rows[:, :, None] & columns[:, None])[:, None]  # [patch, 1, y, x]
    logits = model(ModelInputs(image=torch.cat([image, torch.where(inside, other, image)]))).float()
    total = logits.log_softmax(-1)[:, scene.answer]
    if scene.wrong is not None:
        total = logits[:, scene.answer] - logits[:, scene.wrong]
    return (total[1:] - total[0]).cpu().numpy()
