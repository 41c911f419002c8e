"""How large a piece of a job's work may be, so that on a processor it tells of progress, and can be stopped, often.

A piece is about a second of a model of 135 million parameters on two cores; smaller ones would cost time, larger ones
bring none. An accelerator is given what the library gives by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from circuits import memory

if TYPE_CHECKING:
    from lens.model import Transformer

EXACT = "16MB"
"""For exact patches: many runs of few pairs."""
RUNS = "120MB"
"""For runs of circuits."""
GRADIENTS = "250MB"
"""For attribution, of whose memory gradients take the most."""


def held(model: Transformer, most: str) -> str:
    """What a piece of work on this model may hold: one of the above, for `max_memory`."""
    return most if model.device.type == "cpu" else memory.DEFAULT
