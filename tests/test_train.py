"""Training of small models."""

from __future__ import annotations

import pytest
import torch
from torch import Generator, Tensor

from lens.config import EmbedConfig, ModelConfig, StackConfig, UnembedConfig
from lens.model import Transformer
from lens.progress import Cancelled
from lens.train import Recipe, Trained, fresh, next_token_loss, revision_of, train, waves

RECIPE = Recipe(steps=30, batch_size=8, learning_rate=1e-2, warmup=5)


def tiny(*, tied: bool = False, d_mlp: int | None = None) -> ModelConfig:
    return ModelConfig(
        family="lens",
        name="tiny",
        n_ctx=12,
        embed=EmbedConfig(d_vocab=7, d_embed=16, n_positions=12),
        stack=StackConfig(
            n_layers=1,
            d_model=16,
            n_heads=2,
            d_head=8,
            n_kv_heads=2,
            d_mlp=d_mlp,
            attn_bias=frozenset("qkvo"),
        ),
        unembed=UnembedConfig(d_vocab=7, d_embed=16),
        tied=tied,
    )


def counting(n: int, generator: Generator) -> Tensor:
    """Documents that count upwards, modulo 7, from anywhere."""
    return (torch.randint(7, (n, 1), generator=generator) + torch.arange(12)) % 7


@pytest.mark.parametrize(("tied", "d_mlp"), [(False, None), (True, 24)])
def test_training_lowers_the_loss_and_leaves_the_given_model_alone(tied: bool, d_mlp: int | None) -> None:
    start = fresh(tiny(tied=tied, d_mlp=d_mlp), seed=1)
    before = revision_of(start.state_dict())
    trained = train(start, counting, RECIPE)
    assert isinstance(trained, Trained)
    assert len(trained.losses) == RECIPE.steps
    assert trained.losses[-1] < trained.losses[0] / 3
    assert revision_of(start.state_dict()) == before == start.revision
    model = trained.model
    assert model.revision == revision_of(model.state_dict()) != before
    assert not any(p.requires_grad or p.grad is not None for p in model.parameters())
    assert not model.training
    assert (model.unembed.linear.weight is model.embed.tokens.weight) == tied


def test_the_seeds_decide_everything() -> None:
    def revision(draw: int, data: int) -> str:
        recipe = Recipe(steps=4, batch_size=8, warmup=2, seed=data)
        torch.rand(draw + data)  # torch's own random state has no say
        return train(fresh(tiny(), seed=draw), counting, recipe).model.revision

    assert revision(1, 2) == revision(1, 2)
    assert len({revision(1, 2), revision(2, 2), revision(1, 3)}) == 3


def test_fresh_does_not_move_the_random_state() -> None:
    before = torch.get_rng_state()
    fresh(tiny())
    assert torch.equal(torch.get_rng_state(), before)


def test_training_works_where_gradients_are_off() -> None:
    with torch.no_grad():
        assert train(fresh(tiny()), counting, RECIPE).losses[-1] < 1.0


@pytest.mark.parametrize("d", [16, 33])
def test_positions_start_as_waves(d: int) -> None:
    """The likeness of two positions depends on their distance alone, and neighbours are unlike."""
    w = waves(40, d)
    torch.testing.assert_close(w.pow(2).mean(), torch.tensor(1.0), atol=0.03, rtol=0)
    if d == 16:
        likeness = w @ w.T / d
        for shift in range(5):
            torch.testing.assert_close(likeness.diagonal(shift), likeness[0, shift].expand(40 - shift))
        assert likeness[0, 1:5].abs().max() < 0.1


def test_next_token_loss_is_the_mean_over_predicted_positions() -> None:
    model, ids = fresh(tiny()), counting(3, torch.Generator().manual_seed(0))
    log_probs = model(ids).log_softmax(-1)
    by_hand = [-log_probs[b, p, ids[b, p + 1]] for b in range(3) for p in range(11)]
    torch.testing.assert_close(next_token_loss(model, ids), torch.stack(by_hand).mean())


def test_the_learning_rate_climbs_and_falls() -> None:
    recipe = Recipe(steps=110, learning_rate=1.0, warmup=10, final=0.1)
    rates = [recipe.rate(step) for step in range(110)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == max(rates) == 1.0
    assert rates[60] == pytest.approx(0.55)
    assert rates[-1] == pytest.approx(0.1, abs=1e-3)
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_steps_are_taken_at_that_rate() -> None:
    start = fresh(tiny())
    barely = train(start, counting, Recipe(steps=3, learning_rate=1.0, warmup=10**6)).model
    moved = [(a - b).abs().max() for a, b in zip(start.parameters(), barely.parameters(), strict=True)]
    assert 0 < max(moved) < 1e-5


def test_one_wild_batch_does_not_spoil_the_rest() -> None:
    """Unclipped, its gradient would stay in the optimizer's second moments and stop all learning."""
    calls = iter(range(RECIPE.steps))

    def loss(model: Transformer, ids: Tensor) -> Tensor:
        return next_token_loss(model, ids) * (1e6 if next(calls) == 0 else 1.0)

    assert train(fresh(tiny()), counting, RECIPE, loss=loss).losses[-1] < 1.0


def test_watching_and_cancelling() -> None:
    seen: list[tuple[int, int]] = []

    def watch(done: int, total: int, label: str) -> None:
        seen.append((done, total))
        assert "loss" in label
        if done == 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        train(fresh(tiny()), counting, RECIPE, progress=watch)
    assert seen == [(1, 30), (2, 30), (3, 30)]


def test_a_loss_that_is_lost_is_reported() -> None:
    with pytest.raises(ValueError, match="the loss is nan at step 0"):
        train(fresh(tiny()), counting, RECIPE, loss=lambda m, ids: next_token_loss(m, ids) * torch.nan)


def test_no_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="steps is 0"):
        Recipe(steps=0)
