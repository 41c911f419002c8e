"""What is known of a block that TransformerLens runs: the names of its sites."""

from __future__ import annotations

from typing import Any, NoReturn


class Part:
    """A place in a bridged model. Names of sites are there, weights and functions of ours are not."""

    def __init__(self, model: str, path: str) -> None:
        self._model, self._path = model, path

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name.startswith("hook_"):
            return f"{self._path}.{name}"
        return self._refuse(name)

    def _refuse(self, name: str) -> NoReturn:
        raise ValueError(
            f"this needs {self._path}.{name}, and TransformerLens runs {self._model}: whole runs with reads, edits "
            "and gradients work (exact patching, attribution of nodes, probes), its blocks are not ours"
        )


class BridgedBlock(Part):
    """One block: what attention, MLP and the block's own sites are called."""

    def __init__(self, model: str, layer: int) -> None:
        super().__init__(model, f"blocks.{layer}")
        self.attn = Part(model, f"blocks.{layer}.attn")
        self.mlp = Part(model, f"blocks.{layer}.mlp")
