"""Pictures as the numbers that a model reads, through the Hugging Face processor that its checkpoint names.

Letters: b batch, c channel, y row, x column.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor

from lens.inputs import Array, ModelInputs

if TYPE_CHECKING:
    from lens.model import Transformer


def to_inputs(model: Transformer, given: Any) -> ModelInputs:
    """One or several pictures: Pillow's images, or arrays [y, x, c] or [y, x] of 0 to 255, of any size.

    Raises:
        ValueError: they are something else, the checkpoint names no processor, or Pillow is not installed.
    """
    several = given if isinstance(given, list) else [given]
    if not several or not all(isinstance(one, Array | Tensor) for one in several):
        kind = type(several[0]).__name__ if several else "an empty list"
        raise ValueError(f"{model.cfg.name} reads images, arrays or pictures of Pillow, not {kind}")
    return ModelInputs(image=pixels(model, several)).to(model.device)


def pixels(model: Transformer, pictures: list[Any]) -> Float[Tensor, "b c y x"]:
    """Pictures in the size and scale that the model was trained on."""
    cfg = model.cfg.embed.patches
    assert cfg is not None
    size = f"[batch, {cfg.n_channels}, {cfg.image_size[0]}, {cfg.image_size[1]}]"
    if model.preprocessing is None:
        wanted = f"give pixels {size} as a tensor, scaled as the model was trained"
        raise ValueError(
            f"{model.cfg.name} comes without an image processor (preprocessor_config.json): {wanted}"
        )
    if find_spec("PIL") is None:
        raise ValueError(f"pictures are read with Pillow, which is not installed; or give pixels {size}")
    processor = _processor(json.dumps(model.preprocessing), model.cfg.family)
    made = processor(images=pictures, return_tensors="pt")
    return made["pixel_values"]


@cache
def _processor(settings: str, model_type: str) -> Any:
    """The processor of these settings, or where they do not name one, that of a model type."""
    from transformers import AutoImageProcessor

    told = json.loads(settings)
    told.pop("auto_map", None)  # code of others is not run
    named = told.pop("image_processor_type", None) or told.pop("feature_extractor_type", None)
    if named is not None:
        told["image_processor_type"] = named.replace("FeatureExtractor", "ImageProcessor")
    with TemporaryDirectory() as folder:
        (Path(folder) / "preprocessor_config.json").write_text(json.dumps(told))
        (Path(folder) / "config.json").write_text(json.dumps({"model_type": model_type}))
        try:
            return AutoImageProcessor.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, ImportError, KeyError) as error:
            raise ValueError(
                f"preprocessor_config.json: no image processor {named or model_type!r}"
            ) from error
