"""Trains and measures `reorder-ed`, the encoder–decoder of two and two layers that ships with the project.

    python -m lens.shipped.reorder_ed --out FOLDER

It reads `reverse` or `sort` and four to ten letters, and writes the letters in the order asked for: backwards, or by
the alphabet. To reverse, cross-attention must go from the place in the answer to the mirrored place in the source; to
sort, to the next letter in the alphabet, wherever it stands.

The card that is written beside the weights holds what was measured on fresh sequences, by `measure`.

Letters: b batch, q position in the source, or in what is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from string import ascii_lowercase
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor

from lens.config import EmbedConfig, ModelConfig, SourceConfig, StackConfig, UnembedConfig
from lens.inputs import ModelInputs
from lens.model import Transformer
from lens.shipped.making import Making
from lens.tokens import Tokenizer
from lens.train import Recipe

BOS, EOS, PAD = "<bos>", "<eos>", "<pad>"
ORDERS = ("reverse", "sort")
WORDS = (PAD, BOS, EOS, *ORDERS, *ascii_lowercase)
Ids = Int[Tensor, "b q"]
SHORTEST, LONGEST = 4, 10
MEASURING_SEED = 1_000_003
MEASURED = 2000  # sequences per order


def config() -> ModelConfig:
    d, heads, v, n_ctx = 64, 4, len(WORDS), LONGEST + 2

    def stack(*, decoder: bool) -> StackConfig:
        return StackConfig(
            n_layers=2, d_model=d, n_heads=heads, d_head=d // heads, n_kv_heads=heads, d_mlp=2 * d, causal=decoder,
            cross=decoder, act_fn="gelu",
        )  # fmt: skip

    embed = EmbedConfig(d_vocab=v, d_embed=d, n_positions=n_ctx)
    return ModelConfig(
        family="lens",
        name="reorder-ed",
        n_ctx=n_ctx,
        embed=embed,
        stack=stack(decoder=True),
        unembed=UnembedConfig(d_vocab=v, d_embed=d),
        source=SourceConfig(embed=embed, stack=stack(decoder=False)),
        start_token=WORDS.index(BOS),
    )


def tokenizer() -> Tokenizer:
    """One id per letter; nothing is added to a text."""
    return Tokenizer.from_words(WORDS, bos=BOS, eos=EOS, pad=PAD)


def sequences(n: int, generator: Generator, order: str | None = None) -> tuple[Ids, Ids]:
    """`n` sources, an order and letters each; and what is to be said, the letters in that order and `EOS`.

    Both [b, q], filled up with `PAD`.
    """
    first, pad = len(WORDS) - 26, WORDS.index(PAD)
    lengths = torch.randint(SHORTEST, LONGEST + 1, (n, 1), generator=generator)
    letters = torch.randint(first, len(WORDS), (n, LONGEST), generator=generator)
    orders = torch.randint(len(ORDERS), (n, 1), generator=generator)
    if order is not None:
        orders = torch.full_like(orders, ORDERS.index(order))
    at = torch.arange(LONGEST)[None]
    real = at < lengths
    backwards = letters.gather(1, (lengths - 1 - at).clamp(min=0)).where(real, pad)
    ordered = letters.where(real, len(WORDS)).sort(1).values.where(real, pad)
    said = F.pad(torch.where(orders == 0, backwards, ordered), (0, 1), value=pad)
    source = torch.cat([orders + WORDS.index(ORDERS[0]), letters.where(real, pad)], 1)
    return source, said.scatter(1, lengths, WORDS.index(EOS))


def reading(source: Ids, said: Ids) -> ModelInputs:
    """What the model reads: the source, and what it is to say, moved by one behind `BOS`."""
    mask = source != WORDS.index(PAD)
    ids = F.pad(said[:, :-1], (1, 0), value=WORDS.index(BOS))
    return ModelInputs(ids=ids, mask=mask, source=ModelInputs(ids=source, mask=mask))


def batches(n: int, generator: Generator) -> tuple[ModelInputs, Tensor]:
    """`n` sequences to learn from, and what is to be said."""
    source, said = sequences(n, generator)
    return reading(source, said), said


def loss(model: Transformer, batch: tuple[ModelInputs, Tensor]) -> Float[Tensor, ""]:
    """Cross-entropy of each letter and the end given those before it, in nats."""
    inputs, said = batch
    return F.cross_entropy(model(inputs).flatten(0, 1), said.flatten(), ignore_index=WORDS.index(PAD))


def exact(model: Transformer, order: str, n: int = MEASURED) -> tuple[float, float]:
    """The share of sequences that the model writes without a mistake, each word on its own; and the share of words
    that it foresees."""
    source, said = sequences(n, torch.Generator().manual_seed(MEASURING_SEED), order)
    encoded = model.encode(ModelInputs(ids=source, mask=source != WORDS.index(PAD)))
    read = torch.full((n, 1), WORDS.index(BOS))
    for _ in range(said.shape[1]):
        logits = model(ModelInputs(ids=read, source=encoded))
        read = torch.cat([read, logits[:, -1:].argmax(-1)], 1)
    real = said != WORDS.index(PAD)
    right = (read[:, 1:] == said) | ~real
    foreseen = (model(reading(source, said)).argmax(-1) == said)[real].float().mean().item()
    return right.all(1).float().mean().item(), foreseen


def measure(model: Transformer) -> dict[str, Any]:
    """Per order: sequences written without a mistake by greedy decoding, and words foreseen behind the right ones."""
    found = {order: exact(model, order) for order in ORDERS}
    return {
        "exact": {order: sequences for order, (sequences, _) in found.items()},
        "foreseen": {order: words for order, (_, words) in found.items()},
    }


def summary(measured: Mapping[str, Any]) -> str:
    return ", ".join(f"{share:.1%} right to {order}" for order, share in measured["exact"].items())


MAKING = Making(
    name="reorder-ed",
    command="python -m lens.shipped.reorder_ed",
    description="an encoder–decoder of two and two layers that reverses or sorts four to ten letters",
    data="random letters: `sequences` of the script",
    measured_on=f"{MEASURED} fresh sequences per order, decoded greedily; seed {MEASURING_SEED}",
    recipe=Recipe(steps=3000, batch_size=128, learning_rate=3e-3, warmup=200, seed=0),
    config=config,
    tokenizer=tokenizer,
    batches=batches,
    measure=measure,
    summary=summary,
    loss=loss,
)

if __name__ == "__main__":
    raise SystemExit(MAKING.main())
