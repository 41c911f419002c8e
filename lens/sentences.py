"""Sentence embeddings: one vector per text, the mean of the last residual stream over its tokens (arXiv 1908.10084).

Letters: n text, p position, d d_model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from lens.classifier import first_token
from lens.nearest import unknown
from lens.progress import Progress, silent
from lens.taps import OFF, Edits, Taps

if TYPE_CHECKING:
    from lens.model import Transformer

POOLINGS = ("mean", "first")


@torch.no_grad()
def sentence_embeddings(
    model: Transformer,
    texts: list[str],
    *,
    pooling: str = "mean",
    normalize: bool = True,
    edits: Edits | None = None,
    batch_size: int = 32,
    progress: Progress = silent,
) -> Float[Tensor, "n d"]:
    """One vector per text, from the last residual stream after its norm.

    Args:
        pooling: "mean" over all tokens that are not padding ([CLS] and [SEP] count), or the "first" token.
        normalize: to length one, so that dot products are cosines.
        edits: site → function of the activation.

    Raises:
        ValueError: the model has no tokenizer or is an encoder–decoder, there is no text or an empty one, or a text
            is too long.
    """
    if model.cfg.source is not None:
        raise ValueError(
            f"{model.cfg.name} answers texts: embeddings of sentences are made by models of one stack"
        )
    texts = [texts] if isinstance(texts, str) else list(texts)
    if pooling not in POOLINGS:
        raise ValueError(unknown("pooling", pooling, POOLINGS))
    taps = OFF if edits is None else Taps(edits=edits)
    done = []
    for start in range(0, max(len(texts), 1), batch_size):
        progress(start, len(texts), "embedding texts")
        given = model.to_inputs(texts[start : start + batch_size])
        stream = model(given, taps=taps, stop_at_layer=model.cfg.n_layers)
        if model.ln_final is not None:
            stream = model.ln_final(stream)
        frame = model.frame(given.n, attention_mask=given.mask, batch=given.n_rows)
        if pooling == "first":
            done.append(first_token(stream, frame))
            continue
        real = torch.ones_like(stream[..., :1]) if frame.valid is None else frame.valid[..., None]
        done.append((stream * real).sum(1) / real.sum(1))
    progress(len(texts), len(texts), "embedded texts")
    vectors = torch.cat(done)
    return torch.nn.functional.normalize(vectors, dim=-1) if normalize else vectors
