"""Trains and measures `induction-2l`, the attention-only model of two layers that ships with the project.

    python -m lens.shipped.induction_2l --out FOLDER

The model learns `induction_text.documents`. To foresee a repeated span it needs a head in layer 0 that tells
each position what the word before it was, and heads in layer 1 that look for the place where that is the
present word: an induction circuit (Elhage et al. 2021; Olsson et al. 2022, arXiv 2209.11895). Learned
positions that start as `lens.train.waves` let one head of layer 0 do the first part alone.

The card that is written beside the weights holds what was measured on fresh data, by `measure`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from lens.config import EmbedConfig, ModelConfig, StackConfig, UnembedConfig
from lens.head_scores import head_scores
from lens.model import Transformer
from lens.shipped.induction_text import BOS, Mixture, documents, repeated, words
from lens.shipped.making import Making
from lens.taps import Edits
from lens.tokens import Tokenizer
from lens.train import Recipe

NAME = "induction-2l"
N_CTX = 64
PERIOD = 24  # of the repeated words that are measured on
MIXTURE = Mixture()
MEASURING_SEED = 1_000_003


def config() -> ModelConfig:
    v, d, heads = len(words()), 128, 4
    return ModelConfig(
        family="lens",
        name=NAME,
        n_ctx=N_CTX,
        embed=EmbedConfig(d_vocab=v, d_embed=d, n_positions=N_CTX),
        stack=StackConfig(
            n_layers=2, d_model=d, n_heads=heads, d_head=d // heads, n_kv_heads=heads, d_mlp=None
        ),
        unembed=UnembedConfig(d_vocab=v, d_embed=d),
    )


def tokenizer() -> Tokenizer:
    """One id per word; `BOS` goes in front of every text."""
    return Tokenizer.from_words(words(), bos=BOS, add_bos=True)


def measuring_tokens(n: int = 256) -> Tensor:
    """Fresh documents [n, 1 + 2 * PERIOD]: different random words, twice over."""
    return repeated(n, PERIOD, torch.Generator().manual_seed(MEASURING_SEED))


def copying(model: Transformer, ids: Tensor, edits: Edits | None = None) -> dict[str, float]:
    """How well the words of `repeated` documents are foreseen: loss in nats, accuracy as a share.

    The first word of the second time is not counted: nothing says that the repetition begins.
    """
    logits = model.run_with_cache(ids, [], edits=edits)[0][:, :-1]
    loss = -logits.log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
    right = (logits.argmax(-1) == ids[:, 1:]).float()
    return {
        "loss_first": loss[:, :PERIOD].mean().item(),
        "loss_second": loss[:, PERIOD + 1 :].mean().item(),
        "accuracy_first": right[:, :PERIOD].mean().item(),
        "accuracy_second": right[:, PERIOD + 1 :].mean().item(),
    }


def without_head(layer: int, head: int) -> Edits:
    """Edits that set one head's output to zero."""

    def zero(z: Tensor) -> Tensor:
        z = z.clone()
        z[:, :, head] = 0
        return z

    return {f"blocks.{layer}.attn.hook_z": zero}


def measure(model: Transformer) -> dict[str, Any]:
    """What the card says of the model: copying, scores of all heads, and copying without each head."""
    ids = measuring_tokens()
    patterns = model.activations(ids, "pattern").stack("pattern")
    ordinary = documents(256, N_CTX, torch.Generator().manual_seed(MEASURING_SEED), MIXTURE)
    logits = model(ordinary)[:, :-1]
    every = [(layer, head) for layer in range(model.cfg.n_layers) for head in range(model.cfg.n_heads)]
    alone = {f"a{l}.h{h}": copying(model, ids, without_head(l, h))["accuracy_second"] for l, h in every}
    return {
        "copying": copying(model, ids),
        "loss_on_documents": torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), ordinary[:, 1:].flatten()
        ).item(),
        "head_scores": {name: s.tolist() for name, s in head_scores(patterns, ids).items()},
        "accuracy_second_without": alone,
    }


def best_head(scores: Sequence[Sequence[float]], layer: int) -> int:
    """The head of a layer with the highest score, from a score of the card."""
    return max(range(len(scores[layer])), key=lambda h: scores[layer][h])


def summary(measured: Mapping[str, Any]) -> str:
    scores = measured["head_scores"]
    previous, induction = best_head(scores["previous_token"], 0), best_head(scores["induction"], 1)
    return (
        f"second time {measured['copying']['accuracy_second']:.1%} right, "
        f"previous-token head a0.h{previous} {scores['previous_token'][0][previous]:.2f}, "
        f"induction head a1.h{induction} {scores['induction'][1][induction]:.2f}, "
        f"without a0.h{previous} {measured['accuracy_second_without'][f'a0.h{previous}']:.1%} right"
    )


MAKING = Making(
    name=NAME,
    command="python -m lens.shipped.induction_2l",
    description="two attention-only layers that copy from context: a previous-token head, induction heads",
    data="sentences that repeat spans of themselves, and refrains: lens/shipped/induction_text.py",
    measured_on=f"256 documents of {PERIOD} different random words, twice over; seed {MEASURING_SEED}",
    recipe=Recipe(steps=1200, batch_size=64, learning_rate=3e-3, warmup=100, seed=0),
    config=config,
    tokenizer=tokenizer,
    batches=lambda n, generator: documents(n, N_CTX, generator, MIXTURE),
    measure=measure,
    summary=summary,
    extra={"mixture": asdict(MIXTURE)},
)

if __name__ == "__main__":
    raise SystemExit(MAKING.main())
