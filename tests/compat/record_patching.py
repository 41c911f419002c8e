"""Records what TransformerLens 2.18's `patching` gives, as reference/patching.safetensors; see `record.py`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import calls_patching  # noqa: E402


def main() -> None:
    import record
    from transformer_lens import patching

    found: dict[str, Any] = {}
    for name in calls_patching.MODELS:
        for processed in (False, True):
            model, _ = record.made(name, processed)
            about = f"{name}{'-processed' if processed else ''}"
            found |= {f"{about}/{key}": x for key, x in calls_patching.of_patching(model, patching).items()}
    tensors = {name: x.detach().to(torch.float32).clone().contiguous() for name, x in found.items()}
    save_file(tensors, HERE / "reference" / "patching.safetensors")


if __name__ == "__main__":
    main()
