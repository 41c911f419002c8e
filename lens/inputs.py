"""What a model reads, in one value: token ids with their padding and types.

Letters: b batch, p position, k cached and new positions, d d_model. Shapes are checked when a run begins
(`lens.arguments`), so that what is wrong is named there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from lens.encoded import Encoded
from lens.nearest import unknown

OF_TOKENIZERS = {
    "input_ids": "ids", "attention_mask": "mask", "token_type_ids": "types", "global_attention_mask": "global_tokens",
    "pixel_values": "image", "pixel_mask": "mask", "input_features": "mel", "decoder_input_ids": "ids",
    "decoder_attention_mask": "mask",
}  # fmt: skip
"""What Hugging Face's tokenizers and processors make, by the name of our field."""


@runtime_checkable
class Array(Protocol):
    """An array of numpy, or an image of Pillow."""

    @property
    def __array_interface__(self) -> dict[str, Any]: ...


@dataclass(frozen=True, kw_only=True)
class ModelInputs:
    """Inputs of one run; `Transformer.to_inputs` makes them, and every way of running takes them.

    Either `ids`, or `image`s, or the `features` that a backbone makes of them, or `mel` frames, or the `stream` that a
    run starts from; ids beside a stream only tell where texts end, for models that pool there. `mask`: True (1) where
    a token is real, over cached and new positions, or where a pixel of an image (a place of its features) is; None
    where all are. `types`: 0 for the first text of a pair, 1 for the second; None where all are 0. `global_tokens`:
    True at tokens that see all others and are seen by all (Longformer). `source`: what the encoder of an
    encoder–decoder reads, or what it made of that; the rest is the decoder's.
    """

    ids: Tensor | None = None  # [b, p]
    image: Tensor | None = None  # [b, channel, row, column], as the model's processor scales it
    features: Tensor | None = None  # [b, channel, row, column], as the model's backbone makes them
    mel: Tensor | None = None  # [b, mel, frame], as the model's feature extractor makes them
    stream: Tensor | None = None  # [b, p, d]
    mask: Tensor | None = None  # [b, k], or [b, row, column] beside images of any size and features
    types: Tensor | None = None  # [b, p]
    global_tokens: Tensor | None = None  # [b, p]
    source: ModelInputs | Encoded | None = None

    @property
    def _kinds(self) -> tuple[Tensor | None, ...]:
        return self.stream, self.features, self.image, self.mel, self.ids

    @property
    def given(self) -> Tensor:
        """Ids, image, features, mel frames or stream.

        Raises:
            ValueError: there is none of them.
        """
        given = next((x for x in self._kinds if x is not None), None)
        if given is None:
            raise ValueError("inputs need token ids or a residual stream")
        return given

    @property
    def n_rows(self) -> int:
        return self.given.shape[0]

    @property
    def n(self) -> int:
        """How many positions there are, unless it is an image or a sound."""
        return self.given.shape[1]

    def to(self, device: torch.device | str) -> ModelInputs:
        """The same on `device`."""
        names = ("ids", "image", "features", "mel", "stream", "mask", "types", "global_tokens")
        moved = {name: getattr(self, name).to(device) for name in names if getattr(self, name) is not None}
        source = self.source
        if isinstance(source, ModelInputs):
            source = source.to(device)
        elif source is not None:
            source = source.map(lambda x: x.to(device))
        return ModelInputs(**moved, source=source)


def token_ids(given: Any) -> Tensor | None:
    """A list, lists of the same length or an array of whole numbers as ids; None of anything else.

    Raises:
        ValueError: lists of ids have several lengths.
    """
    if isinstance(given, Tensor):
        return given
    if isinstance(given, list) and given and all(isinstance(row, list) and _whole(row) for row in given):
        if len(lengths := {len(row) for row in given}) > 1:
            raise ValueError(
                f"rows of ids have {min(lengths)} to {max(lengths)} tokens: pad them to one length, and say which "
                "are real in `attention_mask` or `ModelInputs.mask`"
            )
        return torch.tensor(given)
    if isinstance(given, list) and _whole(given):
        return torch.tensor(given)
    if isinstance(given, np.ndarray) and given.dtype.kind in "iu":
        return torch.tensor(given.astype(np.int64))
    return None


def _whole(row: list[Any]) -> bool:
    return bool(row) and all(isinstance(i, int) and not isinstance(i, bool) for i in row)


def from_mapping(given: Mapping[str, Any], *, encodes: bool) -> ModelInputs:
    """What a Hugging Face tokenizer or processor made, as inputs; `encodes` of an encoder–decoder.

    Raises:
        ValueError: it holds something else, or lists of several lengths.
    """
    sides: dict[bool, dict[str, Any]] = {False: {}, True: {}}
    for key, value in given.items():
        if key not in OF_TOKENIZERS or (key.startswith("decoder_") and not encodes):
            raise ValueError(unknown("field", key, OF_TOKENIZERS, of="inputs that a model reads"))
        tensor = value if isinstance(value, Tensor) else torch.as_tensor(np.asarray(_rows(key, value)))
        name = OF_TOKENIZERS[key]
        as_flags = name in ("mask", "global_tokens")
        sides[key.startswith("decoder_")][name] = tensor.bool() if as_flags else tensor
    types = sides[False].get("types")
    if types is not None and not bool(types.any()):
        del sides[False]["types"]  # tokenizers tell of types to models that have none
    if not encodes:
        return ModelInputs(**sides[False])
    return ModelInputs(**sides[True], source=ModelInputs(**sides[False]))


def _rows(key: str, value: Any) -> Any:
    """Rows that make a rectangle."""
    if isinstance(value, list) and len({len(row) if isinstance(row, list) else -1 for row in value}) > 1:
        raise ValueError(f"rows of {key!r} have several lengths: ask the tokenizer for padding=True")
    return value
