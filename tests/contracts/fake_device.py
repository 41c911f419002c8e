"""Every family's forward on a device that does not exist: whatever is left on the CPU fails. Run as a script.

Under `FakeTensorMode` tensors have shapes and devices and no values, so the checks that look at values are left
out, and so are mixtures of experts, whose shapes depend on values. `test_devices.py` runs this in a process of its
own, because the device is registered for good.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from lens import arguments
from lens.config import ModelConfig
from lens.model import Transformer
from tests.parity import MIXERS, SPECIMENS, inputs, ours, padding, prompts, sides

DEVICE = "fakegpu"


MODE = FakeTensorMode()


def register() -> torch.library.Library:
    """The device, and the two operations that `torch.tensor(…, device=…)` needs of it."""
    _setup_privateuseone_for_python_backend(DEVICE)
    library = torch.library.Library("aten", "IMPL")

    def empty_strided(size, stride, *, dtype=None, layout=None, device=None, pin_memory=None):
        made = torch.empty_strided(size, stride, dtype=dtype, device="meta")
        return FakeTensor(MODE, made, torch.device(f"{DEVICE}:0"))

    library.impl("empty_strided", empty_strided, "PrivateUse1")
    library.impl("_copy_from", lambda source, target, non_blocking=False: target, "PrivateUse1")
    return library


def without_values() -> None:
    """Replace the checks that look at values by what they give for sound inputs."""
    arguments.check_ids = lambda *given: None
    arguments.check_ends = lambda *given: None
    arguments.validity = lambda mask, *rest: None if mask is None else mask.bool()
    arguments.global_tokens = lambda cfg, given, *rest: given.global_tokens


def attempt(cfg: ModelConfig, reference: Transformer) -> None:
    for side in sides(reference):
        with MODE:
            with torch.device(DEVICE):
                model = Transformer(cfg)
            given = inputs(reference, prompts(), padding(side)).to(DEVICE)
            outputs: list[Tensor] = [
                model(given),
                *model.run_with_cache(given, list(model.sites))[1].values(),
            ]
            for output in outputs:
                assert output.device.type == DEVICE, output.device


def main() -> None:
    without_values()
    library, n = register(), 0
    for family, name in [*SPECIMENS, *MIXERS]:
        reference = ours(family, name)
        stacks = [reference.cfg.stack, *([reference.cfg.source.stack] if reference.cfg.source else [])]
        if any(stack.experts is not None for stack in stacks):
            continue
        try:
            attempt(reference.cfg, reference)
        except Exception as error:
            raise SystemExit(f"{family} {name}: {error}") from error
        n += 1
    sys.stdout.write(f"{n} models on a fake device\n")
    del library  # operations are registered as long as it lives


if __name__ == "__main__":
    main()
