"""Text in and out of a model; what else models read is left to `images` and `sounds`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from lens import images, sounds
from lens.inputs import ModelInputs, from_mapping, token_ids

if TYPE_CHECKING:
    from lens.config import ModelConfig
    from lens.model import Transformer
    from lens.tokens import Tokenizer


def tokenizer_of(model: Transformer) -> Tokenizer:
    """The model's tokenizer.

    Raises:
        ValueError: it has none.
    """
    if model.tokenizer is None and model.cfg.embed.patches is not None:
        raise ValueError(f"{model.cfg.name} reads images, and no text")
    if model.tokenizer is None:
        raise ValueError(f"{model.cfg.name} has no tokenizer; give token ids instead of text")
    return model.tokenizer


def to_tokens(
    model: Transformer, texts: Any, prepend_bos: bool | None = None, side: Literal["right", "left"] = "right"
) -> tuple[Tensor, Tensor | None]:
    """Ids [b, p] on the model's device, padded on `side`, and their mask where anything is padded.

    Raises:
        ValueError: there is no tokenizer, or nothing to tokenise.
    """
    batch = [texts] if isinstance(texts, str) else list(texts) if isinstance(texts, list | tuple) else []
    if not batch or not all(isinstance(t, str) for t in batch):
        got = f"{type(texts).__name__} {str(texts)[:40]!r}"
        raise ValueError(f"expected a text, a list of texts or a tensor of token ids, got {got}")
    ids, mask = tokenizer_of(model).batch(batch, prepend_bos=prepend_bos, side=side)
    if ids.shape[1] == 0 or not bool(mask.any(-1).all()):
        empty = next(i for i, row in enumerate(mask) if not bool(row.any())) if ids.shape[1] else 0
        raise ValueError(f"prompt {empty} is empty: it has no tokens")
    return ids.to(model.device), None if bool(mask.all()) else mask.to(model.device)


def to_inputs(
    model: Transformer, texts: Any, prepend_bos: bool | None = None, targets: Any = None
) -> ModelInputs:
    """A text, texts, pairs of texts in a list, or ids as a model's inputs; pairs come with their tokens' types.

    Ids are a tensor, an array, a list, or lists of the same length. Models of images read pictures (`lens.images`),
    encoders of sounds waveforms or mel frames (`lens.sounds`). What a Hugging Face tokenizer or processor makes
    (`input_ids`, `attention_mask`, …) is taken as it is.

    An encoder–decoder reads texts or sounds as sources. `targets` (texts, or ids) are what it is to say: its
    decoder reads them moved by one, behind the token that begins a text, so that logits at a position are about
    the target's token there. Without them, it reads what it begins every text with.

    Raises:
        ValueError: as `to_tokens`; or pairs and `prepend_bos`, or targets and no encoder, which do not go together.
    """
    if isinstance(texts, Mapping) and sounds.reads(model.cfg) and "array" in texts:
        texts = sounds.recorded(texts, model.cfg.name)
    elif isinstance(texts, Mapping):
        texts = from_mapping(texts, encodes=model.cfg.source is not None)
        if targets is None:
            return model.to_inputs(texts)
        texts = texts.source or texts
    if model.cfg.source is not None:
        return _with_targets(model, _source(model, texts, prepend_bos), targets)
    if targets is not None:
        raise ValueError(f"{model.cfg.name} has no encoder: give source and target as one text")
    if model.cfg.embed.patches is not None:
        return images.to_inputs(model, texts)
    if (given := token_ids(texts)) is not None:
        return model.to_inputs(given)
    if isinstance(texts, tuple) and _is_pair(texts):
        raise ValueError(
            "a pair of texts stands in a list, as [(first, second)]; so do two texts, as [one, other]"
        )
    if not isinstance(texts, list) or not all(_is_pair(pair) for pair in texts) or not texts:
        ids, mask = to_tokens(model, texts, prepend_bos)
        return ModelInputs(ids=ids, mask=mask)
    if prepend_bos is not None:
        raise ValueError("prepend_bos is for single texts: what stands around a pair is up to the tokenizer")
    tokenizer = tokenizer_of(model)
    rows, types = zip(*(tokenizer.pair(*pair) for pair in texts), strict=True)
    ids, mask = tokenizer.pad(rows)
    of_tokens = tokenizer.pad(types, fill=0)[0] if model.cfg.embed.n_types > 1 else None
    return ModelInputs(ids=ids, mask=None if bool(mask.all()) else mask, types=of_tokens).to(model.device)


def _source(model: Transformer, given: Any, prepend_bos: bool | None) -> ModelInputs:
    if isinstance(given, ModelInputs):
        return given.source if isinstance(given.source, ModelInputs) else given
    if sounds.reads(model.cfg):
        return sounds.source(model, given)
    if images.reads(model.cfg):
        return images.source(model, given)
    if (ids := token_ids(given)) is not None:
        return ModelInputs(ids=ids[None] if ids.ndim == 1 else ids)
    ids, mask = to_tokens(model, given, prepend_bos)
    return ModelInputs(ids=ids, mask=mask)


def start_of(cfg: ModelConfig, n: int) -> Tensor:
    """What a decoder reads before it has said anything, [n, 1 and the tokens that are forced]; or its object queries.

    Raises:
        ValueError: the configuration does not say.
    """
    if cfg.embed.empty:
        return torch.arange(cfg.embed.n_positions or 0).repeat(n, 1)
    if cfg.start_token is None:
        raise ValueError(f"{cfg.name} does not say which token begins a text: give the target's ids")
    return torch.tensor([[cfg.start_token, *cfg.forced]]).repeat(n, 1)


def _with_targets(model: Transformer, source: ModelInputs, targets: Any) -> ModelInputs:
    start = start_of(model.cfg, source.n_rows).to(model.device)
    if targets is None:
        return ModelInputs(ids=start, source=source)
    if model.cfg.embed.empty:
        raise ValueError(f"{model.cfg.name} finds objects and says no text: it takes no targets")
    start = start[:, :1]
    given = token_ids(targets)
    ids, mask = to_tokens(model, targets) if given is None else (given.to(model.device), None)
    ids = ids[None] if ids.ndim == 1 else ids
    if ids.ndim != 2 or len(ids) != source.n_rows:
        what = len(ids) if ids.ndim == 2 else f"{tuple(ids.shape)} ids of"
        raise ValueError(f"there are {source.n_rows} sources and {what} targets")
    if bool((ids[:, 0] == model.cfg.start_token).all()):  # the tokenizer begins texts with it
        ids, mask = ids[:, 1:], None if mask is None else mask[:, 1:]
    real = None if mask is None else torch.cat([torch.ones_like(mask[:, :1]), mask[:, :-1]], 1)
    return ModelInputs(ids=torch.cat([start, ids[:, :-1]], 1), mask=real, source=source)


def _is_pair(given: Any) -> bool:
    return isinstance(given, tuple) and len(given) == 2 and all(isinstance(part, str) for part in given)


def to_str_tokens(model: Transformer, inputs: Any, prepend_bos: bool | None = None) -> list[str]:
    """One readable string per token of a text or of ids [p] or [1, p].

    Raises:
        ValueError: ids of more than one row.
    """
    if isinstance(inputs, str):
        inputs = to_tokens(model, inputs, prepend_bos)[0]
    if isinstance(inputs, Tensor):
        if inputs.ndim == 2 and inputs.shape[0] != 1:
            raise ValueError(f"to_str_tokens takes one row of ids, not {inputs.shape[0]}")
        inputs = inputs.flatten().tolist()
    return tokenizer_of(model).str_tokens(inputs)


def to_string(model: Transformer, ids: Any) -> str:
    """Ids [p] or [1, p] back to text."""
    return tokenizer_of(model).decode(ids.flatten().tolist() if isinstance(ids, Tensor) else list(ids))
