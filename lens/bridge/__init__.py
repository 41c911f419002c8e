"""Models of architectures that no family here reads, run by TransformerLens's TransformerBridge in our terms.

Imported only where `lens.load(…, backend="transformer-lens")` asks for it.
"""

from __future__ import annotations

from lens.bridge.loading import load
from lens.bridge.model import Bridged

__all__ = ["Bridged", "load"]
