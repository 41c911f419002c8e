"""What the scripts of shipped models share: train, measure, write the card and the folder, and the command line."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lens.config import ModelConfig
from lens.model import Transformer
from lens.tokens import Tokenizer
from lens.train import Batches, Recipe, fresh, next_token_loss, train

CURVE_EVERY = 25  # steps that are averaged into one point of the card's loss curve


@dataclass(frozen=True, kw_only=True)
class Making:
    """How a shipped model is made: everything that its card needs to say.

    `command` is the script's; `measure` gives the card's figures and `summary` one line about them; `extra` goes to
    the card as it is.
    """

    name: str
    command: str
    description: str
    data: str
    measured_on: str
    recipe: Recipe
    config: Callable[[], ModelConfig]
    tokenizer: Callable[[], Tokenizer] | None
    batches: Batches
    measure: Callable[[Transformer], dict[str, Any]]
    summary: Callable[[Mapping[str, Any]], str]
    loss: Callable[[Transformer, Any], Tensor] = next_token_loss
    preprocessing: Mapping[str, Any] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def make(self, out: Path, recipe: Recipe | None = None) -> dict[str, Any]:
        """Train, measure and save; gives the card.

        Raises:
            FileExistsError: `out` exists.
        """
        from tqdm import tqdm

        from lens.load import save

        recipe = self.recipe if recipe is None else recipe
        begun = time.process_time()
        tokenizer = None if self.tokenizer is None else self.tokenizer()
        start = fresh(self.config(), recipe.seed, tokenizer=tokenizer)
        with tqdm(total=recipe.steps, unit="step") as bar:

            def progress(done: int, total: int, label: str) -> None:
                bar.set_description(label, refresh=False)
                bar.update(done - bar.n)

            trained = train(start, self.batches, recipe, loss=self.loss, progress=progress)
        card = {
            "name": self.name,
            "description": self.description,
            "licence": "MIT",
            "made_by": f"{self.command} --out {out.name} --steps {recipe.steps} --seed {recipe.seed}",
            "data": self.data,
            "recipe": asdict(recipe),
            **self.extra,
            "torch": torch.__version__,
            "cpu_seconds": round(time.process_time() - begun),
            "n_parameters": sum(p.numel() for p in trained.model.parameters()),
            "weights": trained.model.revision,
            "measured_on": self.measured_on,
            "measured": _rounded(self.measure(trained.model)),
            "loss_curve": {"every": CURVE_EVERY, "loss": _curve(trained.losses)},
        }
        trained.model.preprocessing = None if self.preprocessing is None else dict(self.preprocessing)
        save(trained.model, out, card=card)
        return card

    def main(self, arguments: Sequence[str] | None = None) -> int:
        """Command line; 2 where the folder exists or cannot be written."""
        parser = argparse.ArgumentParser(prog=self.command, description=self.description)
        parser.add_argument("--out", type=Path, required=True, help="a folder that does not exist yet")
        parser.add_argument("--steps", type=int, default=self.recipe.steps)
        parser.add_argument("--seed", type=int, default=self.recipe.seed)
        given = parser.parse_args(arguments)
        if given.out.exists():
            parser.error(f"{str(given.out)!r} already exists; choose another folder")
        try:
            recipe = replace(self.recipe, steps=given.steps, seed=given.seed)
            torch.set_num_threads(1)
            torch.use_deterministic_algorithms(True)
            measured = self.make(given.out, recipe)["measured"]
        except (ValueError, OSError) as error:
            parser.error(str(error))
        sys.stdout.write(f"{given.out}: {self.summary(measured)}\n")
        return 0


def _curve(losses: Sequence[float]) -> list[float]:
    points = [losses[i : i + CURVE_EVERY] for i in range(0, len(losses), CURVE_EVERY)]
    return [round(sum(point) / len(point), 4) for point in points]


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    return round(value, 4) if isinstance(value, float) else value
