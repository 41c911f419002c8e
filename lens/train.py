"""Training of small models: weights drawn from a seed, AdamW, a learning rate that warms up and falls.

1. `fresh` draws the weights of a configuration.
2. `train` copies a model, lets its parameters learn for a number of steps, and freezes the copy.

A run depends on its seeds alone: two runs on one machine, with one number of threads, give the same weights
bit for bit. On an accelerator that needs `torch.use_deterministic_algorithms(True)` as well.

Letters: b batch, p position, v vocabulary.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from lens.config import ModelConfig
from lens.mixer import mixer_at
from lens.model import Transformer
from lens.parameters import aliases_of, shapes_of
from lens.progress import Progress, silent

Batches = Callable[[int, Generator], Any]
"""Draws a batch: number of rows, source of randomness → what the loss takes, on the CPU: ids [b, p], or a tuple of
tensors and `ModelInputs`."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train. The learning rate climbs to `learning_rate` over `warmup` steps, then falls along half a
    cosine to `final` times that. Weight decay (decoupled, arXiv 1711.05101) acts on matrices only; gradients
    are clipped to the norm `clip`."""

    steps: int
    batch_size: int = 64
    learning_rate: float = 3e-3
    warmup: int = 100
    final: float = 0.02
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.01
    clip: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        done = (step - self.warmup) / max(self.steps - self.warmup, 1)
        return self.learning_rate * (self.final + (1 - self.final) * (1 + math.cos(math.pi * done)) / 2)


@dataclass(frozen=True)
class Trained:
    """A frozen model, and the loss of every step in nats per token, each before the step was taken."""

    model: Transformer
    losses: tuple[float, ...]


def fresh(
    cfg: ModelConfig, seed: int = 0, *, tokenizer: Any = None, embed_std: float = 0.5, out_std: float = 0.5
) -> Transformer:
    """A model with random weights; torch's own random state is neither used nor moved.

    Matrices are normal with standard deviation 1/√(columns), times `out_std` where they write to the residual
    stream; embeddings are normal with `embed_std`, positions are `waves` of that size; norms start as the
    identity, biases at zero. A mixer may say otherwise of its own (`lens.mixer.Mixer.initial`).
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(name: str, shape: tuple[int, ...]) -> Tensor:
        if name.endswith(".bias"):
            return torch.zeros(shape)
        if len(shape) < 2:
            return torch.zeros(shape) if cfg.stack.norm_unit_offset else torch.ones(shape)
        if name.endswith("embed.positions.weight"):
            return waves(shape[0], shape[1]) * embed_std
        if name.endswith(("embed.tokens.weight", "class_token.weight")):
            return torch.randn(shape, generator=generator) * embed_std
        writes = name.endswith((".o.weight", ".out_proj.weight", ".down.weight"))
        columns = math.prod(shape[1:])
        return torch.randn(shape, generator=generator) * (out_std if writes else 1.0) * columns**-0.5

    state = {name: draw(name, shape) for name, shape in shapes_of(cfg).items()}
    for layer in range(cfg.n_layers):
        here = cfg.stack.at(layer)
        mixer = mixer_at(here)
        if mixer is not None and mixer.initial is not None:
            own = mixer.initial(here, layer, generator)
            state |= {f"stack.blocks.{layer}.{mixer.path}.{name}": value for name, value in own.items()}
    return _frozen(cfg, state, tokenizer, f"random weights, seed {seed}")


def waves(n: int, d: int) -> Float[Tensor, "n d"]:
    """Positions as waves of mean square 1, with frequencies evenly spaced between 0 and π.

    A shift by one position is one rotation, as with the sinusoids of arXiv 1706.03762 §3.5, so all positions
    teach a head the same thing; but neighbours are nearly orthogonal, so one head can tell them apart alone.
    """
    half = (d + 1) // 2
    angles = torch.arange(n)[:, None] * (torch.arange(half) + 0.5) * (math.pi / half)
    return torch.cat([angles.sin(), angles.cos()], 1)[:, :d] * math.sqrt(2)


def next_token_loss(model: Transformer, ids: Int[Tensor, "b p"]) -> Float[Tensor, ""]:
    """Mean cross-entropy of each token given those before it, in nats."""
    logits = model(ids)[:, :-1]
    return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())


def train(
    model: Transformer,
    batches: Batches,
    recipe: Recipe,
    *,
    loss: Callable[[Transformer, Any], Tensor] = next_token_loss,
    progress: Progress = silent,
) -> Trained:
    """Train a copy of `model`, which itself stays as it is.

    Args:
        batches: draws a batch; it is given a generator seeded with `recipe.seed`.
        loss: what is made small: (model, a batch) → scalar. By default batches are ids [b, p].
        progress: called after every step with the loss in the label; may raise `Cancelled`.

    Raises:
        ValueError: the loss is no longer a finite number; the message names the step.
    """
    learner = _copy(model).requires_grad_(True)
    generator = torch.Generator().manual_seed(recipe.seed)
    optimizer = _optimizer(learner, recipe)
    losses: list[float] = []
    for step in range(recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate(step)
        batch = _on(learner.device, batches(recipe.batch_size, generator))
        with torch.enable_grad():
            value = loss(learner, batch)
            optimizer.zero_grad()
            value.backward()
        losses.append(value.item())
        if not math.isfinite(losses[-1]):
            raise ValueError(f"the loss is {losses[-1]} at step {step}: try a smaller learning rate")
        torch.nn.utils.clip_grad_norm_(learner.parameters(), recipe.clip)
        optimizer.step()
        progress(step + 1, recipe.steps, f"training, loss {losses[-1]:.3f}")
    optimizer.zero_grad()
    return Trained(_copy(learner), tuple(losses))


def revision_of(state: Mapping[str, Tensor]) -> str:
    """`sha256:` and 16 hex digits of the hash of all names and values, in the order of names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return f"sha256:{digest.hexdigest()[:16]}"


def _on(device: torch.device, batch: Any) -> Any:
    return tuple(part.to(device) for part in batch) if isinstance(batch, tuple) else batch.to(device)


def _copy(model: Transformer) -> Transformer:
    """The same weights in tensors of their own, frozen."""
    state = {name: tensor.detach().clone() for name, tensor in nn.Module.state_dict(model).items()}
    origin = f"{model.origin.removesuffix(', trained')}, trained".removeprefix(", ")
    return _frozen(model.cfg, state, model.tokenizer, origin)


def _frozen(cfg: ModelConfig, state: dict[str, Tensor], tokenizer: Any, origin: str) -> Transformer:
    state |= {name: state[same] for name, same in aliases_of(cfg).items()}
    return Transformer.from_state(cfg, state, tokenizer=tokenizer, revision=revision_of(state), origin=origin)


def _optimizer(model: Transformer, recipe: Recipe) -> torch.optim.AdamW:
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=recipe.betas)
