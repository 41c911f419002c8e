"""The amnesic test against plain runs with hooks, the rank of equal effect against trying all ranks, bad input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lens.model import Transformer
from probes.amnesic import amnesic
from probes.batched import Problem, fit_many
from probes.eraser import Eraser, fit_eraser
from probes.erasers.random import random_eraser
from probes.harvest import harvest
from probes.labelled import Labelled
from probes.measures import LogitDifference
from probes.refit import Judge, Refit
from probes.targets import Classes, Heads, Values
from tests.probes.conftest import WORDS

SITE = "blocks.1.hook_resid_post"
USED = WORDS[:12]


def data(n: int = 120, seed: int = 0) -> Labelled:
    """Texts of three to five words; the class is whether the last is one of the first half of those used."""
    generator = np.random.default_rng(seed)
    texts = [" ".join(generator.choice(USED, generator.integers(3, 6))) for _ in range(n)]
    labels = [USED.index(text.split()[-1]) < 6 for text in texts]
    return Labelled.of(texts, labels, [str(i // 2) for i in range(n)])


def eraser_of(model: Transformer, site: str = SITE, method: str = "leace") -> Eraser:
    fitted = data(250, seed=9)
    x = harvest(model, fitted, [site])[site]
    return fit_eraser(method, x, fitted.target(), site=site)


def naive(
    model: Transformer, labelled: Labelled, edit: Any, site: str, read: str, first: Any
) -> tuple[Tensor, float]:
    """Activations of each text's last token, and the loss per token, one text and one hooked run at a time."""
    rows, total, count = [], 0.0, 0
    for text in labelled.texts:
        ids = model.to_tokens(text)
        start = ids.shape[1] - 1 if first == "rows" else first

        def hook(x: Tensor, hook: object, start: int = start) -> Tensor:
            return torch.cat([x[:, :start], edit(x)[:, start:]], 1)

        with model.hooks([(site, hook)] if edit else []):
            logits, cache = model.run_with_cache(ids, [read])
        rows.append(cache[read][0, -1].flatten())
        total -= float(logits[0, :-1].log_softmax(-1)[torch.arange(ids.shape[1] - 1), ids[0, 1:]].sum())
        count += ids.shape[1] - 1
    return torch.stack(rows), total / count


@pytest.mark.parametrize(
    ("site", "read", "options", "first"),
    [
        (SITE, SITE, {}, 0),
        (SITE, "blocks.2.hook_resid_post", {}, 0),
        (SITE, "blocks.2.hook_mlp_out", {"skip": 1}, 1),
        (SITE, SITE, {"where": "rows"}, "rows"),
        (SITE, "blocks.2.hook_resid_pre", {"where": "rows"}, "rows"),
        ("blocks.1.attn.hook_z", SITE, {}, 0),
        ("blocks.1.hook_resid_pre", "blocks.1.hook_resid_mid", {}, 0),
        ("blocks.2.hook_resid_post", "blocks.2.hook_resid_post", {}, 0),
    ],
)
def test_lines_are_those_of_hooked_runs(
    tiny: Transformer, site: str, read: str, options: dict, first: Any
) -> None:
    labelled, eraser = data(40), eraser_of(tiny, site)
    task = Refit(read, folds=4)
    found = amnesic(tiny, labelled, eraser, task=task, draws=2, equal_effect=False, batch_size=7, **options)
    judge = Judge.of(task, labelled)
    controls = [random_eraser(eraser.centre, eraser.rank, draw) for draw in range(2)]
    expected = []
    for edit in (None, eraser, *controls):
        x, loss = naive(tiny, labelled, edit, site, read, first)
        expected.append((float(judge.scores(x.float()[None]).mean()), loss))
    scores, losses = np.array(expected).T
    lines = (found.before, found.erased, found.same_rank)
    assert [line.score for line in lines] == pytest.approx(
        [scores[0], scores[1], scores[2:].mean()], abs=0.03
    )
    assert [line.loss for line in lines] == pytest.approx([losses[0], losses[1], losses[2:].mean()], abs=1e-4)
    assert [line.increase for line in lines] == pytest.approx(
        [0, losses[1] - losses[0], losses[2:].mean() - losses[0]], abs=2e-4
    )
    for line in lines:
        assert line.score_low <= line.score <= line.score_high
        assert line.loss_low <= line.loss <= line.loss_high
        assert line.increase_low <= line.increase + 1e-9 and line.increase <= line.increase_high + 1e-9
    assert found.tokens == sum(len(text.split()) for text in labelled.texts)
    assert list(found.table.erasure) == ["none", "leace", "random, same rank"]


def test_the_concept_is_gone_and_a_random_direction_is_not_enough(tiny: Transformer) -> None:
    labelled = data(300)
    found = amnesic(tiny, labelled, eraser_of(tiny), draws=4)
    assert found.before.score > 0.8
    assert found.erased.score_low < found.floor + 0.02
    assert found.same_rank.score > 0.75
    assert found.equal_effect is not None and found.saving is not None
    assert found.equal_effect.rank > 6
    assert found.saving[1] > 0 or found.saving[2] < 0, (
        "a model of random weights may gain or lose, but for certain"
    )
    assert found.saving[0] == pytest.approx(found.equal_effect.loss - found.erased.loss)
    assert found.saving[1] <= found.saving[0] <= found.saving[2]


def test_the_rank_of_equal_effect(tiny: Transformer) -> None:
    """Bisection finds what trying every rank finds, where the score falls with the rank."""
    labelled, eraser = data(120), eraser_of(tiny)
    found = amnesic(tiny, labelled, eraser, draws=2)
    judge = Judge.of(Refit(SITE), labelled)
    x = harvest(tiny, labelled, [SITE])[SITE]
    enough = max(found.erased.score_high, judge.floor)
    means = []
    for rank in range(17):
        draws = torch.stack([random_eraser(eraser.centre, rank, draw)(x) for draw in range(2)])
        means.append(float(judge.scores(draws).mean()))
    assert found.equal_effect is not None
    rank = found.equal_effect.rank
    assert means[rank] <= enough < means[rank - 1]
    assert found.equal_effect.score == pytest.approx(means[rank], abs=1e-9)
    assert dict(found.search) == pytest.approx({k: means[k] for k, _ in found.search}, abs=1e-9)
    assert [k for k, _ in found.search] == sorted({k for k, _ in found.search})


def test_the_models_own_answer(tiny: Transformer) -> None:
    """A logit difference as the task: its sign is the class the model tells."""
    labelled, eraser = data(60), eraser_of(tiny)
    halves = list(USED[:6]), list(USED[6:])
    measure = LogitDifference.of(tiny, *halves)
    found = amnesic(tiny, labelled, eraser, task=measure, draws=2, equal_effect=False)
    truth = np.asarray(labelled.target().labels) == 1  # type: ignore[union-attr]
    for line, edit in ((found.before, None), (found.erased, eraser)):
        right = []
        for text, true in zip(labelled.texts, truth, strict=True):
            logits = tiny.run_with_hooks(text, [(SITE, lambda x, hook: edit(x))] if edit else [])[0, -1]  # noqa: B023
            ids = [[tiny.to_single_token(word) for word in half] for half in halves]
            right.append((float(logits[ids[0]].logsumexp(0) - logits[ids[1]].logsumexp(0)) > 0) == true)
        each = [np.mean(np.array(right)[truth == side]) for side in (True, False)]
        assert line.score == pytest.approx(np.mean(each))
    assert found.floor == 0.5


def test_harvested_activations_save_the_runs(tiny: Transformer) -> None:
    labelled, eraser = data(60), eraser_of(tiny)
    store = harvest(tiny, labelled, [SITE])
    known = amnesic(tiny, labelled, eraser, draws=2, activations={SITE: store[SITE]})
    plain = amnesic(tiny, labelled, eraser, draws=2)
    assert [line.score for line in known.lines] == pytest.approx(
        [line.score for line in plain.lines], abs=0.03
    )
    assert known.erased.loss == plain.erased.loss
    with pytest.raises(ValueError, match="there are 60 rows and activations of 59"):
        amnesic(tiny, labelled, eraser, activations={SITE: store[SITE][:59]})


def test_loss_on_other_texts(tiny: Transformer) -> None:
    labelled, eraser, other = data(40), eraser_of(tiny), data(25, seed=5)
    found = amnesic(tiny, labelled, eraser, texts=list(other.texts), draws=1, equal_effect=False)
    assert found.erased.loss == pytest.approx(naive(tiny, other, eraser, SITE, SITE, 0)[1], abs=1e-4)
    assert found.tokens == sum(len(text.split()) for text in other.texts)


def test_several_sites_in_one_run(tiny: Transformer) -> None:
    labelled = data(40)
    sites = ["blocks.1.hook_resid_post", "blocks.0.hook_mlp_out"]
    erasers = {site: eraser_of(tiny, site) for site in sites}
    found = amnesic(tiny, labelled, erasers, draws=2)
    total, count = 0.0, 0
    for text in labelled.texts:
        ids = tiny.to_tokens(text)
        logits, _ = tiny.run_with_cache(ids, [], edits=erasers)
        total -= float(logits[0, :-1].log_softmax(-1)[torch.arange(ids.shape[1] - 1), ids[0, 1:]].sum())
        count += ids.shape[1] - 1
    assert found.erased.loss == pytest.approx(total / count, abs=1e-4)
    assert found.erased.rank == 2
    assert "probe fitted anew at blocks.1.hook_resid_post" in found.task
    assert found.sites == {"blocks.0.hook_mlp_out": "leace", "blocks.1.hook_resid_post": "leace"}


def test_balanced_accuracy() -> None:
    """Each class counts the same, and the floor is that of any constant."""
    from sklearn.metrics import balanced_accuracy_score

    y = np.array([0] * 60 + [1] * 30 + [2] * 10)
    g = torch.Generator().manual_seed(0)
    x = torch.randn(100, 5, generator=g) + torch.tensor(y)[:, None]
    labelled = Labelled.of([f"t{i}" for i in range(100)], [str(c) for c in y])
    judge = Judge.of(Refit(), labelled)
    told = np.zeros(100, dtype=int)
    fits = fit_many("logistic", x, [Problem(y, fold.train) for fold in judge.outer])
    for i, fold in enumerate(judge.outer):
        told[fold.test] = fits.predict(i, x[torch.as_tensor(fold.test)])
    both = judge.scores(torch.stack([x, torch.zeros(100, 5)])).mean(1).tolist()
    assert both == pytest.approx([balanced_accuracy_score(y, told), 1 / 3])
    assert judge.floor == pytest.approx(1 / 3)


def test_values(tiny: Transformer) -> None:
    """R² of a probe of real numbers, row by row."""
    base = data(80)
    values = np.array([[WORDS.index(word) for word in text.split()[-2:]] for text in base.texts], dtype=float)
    labelled = Labelled(
        "v", base.texts, base.text, None, {"index": Values(values, ("last but one", "last"), "words")}
    )
    judge = Judge.of(Refit(penalty=1.0), labelled)
    x = harvest(tiny, labelled, [SITE])[SITE]
    fits = fit_many("ridge", x, [Problem(values, fold.train, 1.0) for fold in judge.outer])
    told = np.zeros_like(values)
    for i, fold in enumerate(judge.outer):
        told[fold.test] = fits.predict(i, x[torch.as_tensor(fold.test)])
    r2 = 1 - ((values - told) ** 2).mean(0) / values.var(0)
    assert float(judge.scores(x[None]).mean()) == pytest.approx(r2.mean())
    eraser = fit_eraser("leace", x, values, site=SITE)
    found = amnesic(tiny, labelled, eraser, task=Refit(penalty=1.0), draws=1, equal_effect=False)
    assert found.metric == "R²"
    assert found.before.score == pytest.approx(r2.mean(), abs=1e-3)
    assert found.erased.score < 0.05 < found.before.score


def test_what_does_not_hurt_has_no_equal(tiny: Transformer) -> None:
    labelled = data(60)
    nothing = Eraser(
        "leace", torch.zeros(16, 0).double(), torch.zeros(0, 16).double(), torch.zeros(16).double(), SITE
    )
    found = amnesic(tiny, labelled, nothing, draws=1)
    assert found.erased.score == found.before.score
    assert found.equal_effect is None and found.saving is None
    assert found.search == ()


def test_the_same_seed_gives_the_same_numbers(tiny: Transformer) -> None:
    labelled, eraser = data(60), eraser_of(tiny)
    first, again = (amnesic(tiny, labelled, eraser, draws=2) for _ in range(2))
    assert first.lines == again.lines
    assert amnesic(tiny, labelled, eraser, draws=2, seed=1).same_rank != first.same_rank


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eraser": {}}, "there is no eraser"),
        ({"eraser": "unplaced"}, "the eraser does not say where it was fitted"),
        ({"eraser": "wide"}, "the eraser takes activations 16 wide, and 'blocks.1.mlp.hook_post' is 24 wide"),
        ({"eraser": "unknown"}, "did you mean 'blocks.1.hook_resid_post'"),
        ({"task": Refit("blocks.0.hook_resid_post")}, "'blocks.0.hook_resid_post' is not downstream"),
        ({"task": 3}, "a measure is a probe"),
        ({"draws": 0}, "draws is 0"),
        ({"where": "row"}, "where is 'row'; it is 'all' or 'rows'"),
        ({"where": "rows", "texts": ["bar"]}, "only the labelled texts have rows"),
        ({"positions": "mean"}, "here each row is one token"),
        ({"target": "labl"}, "did you mean 'label'"),
        ({"texts": []}, "there are no prompts"),
    ],
)  # fmt: skip
def test_bad_input(tiny: Transformer, change: dict, message: str) -> None:
    x, y = torch.randn(20, 16), torch.arange(20) % 2
    given = {
        "unplaced": fit_eraser("leace", x, y),
        "wide": {"blocks.1.mlp.hook_post": fit_eraser("leace", x, y)},
        "unknown": {"blocks.1.hook_resid_pst": fit_eraser("leace", x, y)},
    }
    options = {"labelled": data(30), "eraser": fit_eraser("leace", x, y, site=SITE), **change}
    if isinstance(options["eraser"], str):
        options["eraser"] = given[options["eraser"]]
    with pytest.raises(ValueError, match=message) as error:
        amnesic(tiny, **options)
    assert "\n" not in str(error.value)


def test_labels_of_another_kind(tiny: Transformer) -> None:
    base = data(30)
    eraser = eraser_of(tiny)
    heads = Labelled("h", base.texts, base.text, None, {"head": Heads(np.full(30, -1))})
    with pytest.raises(ValueError, match="the labels are syntactic heads"):
        amnesic(tiny, heads, eraser)
    three = Labelled("t", base.texts, base.text, None, {"label": Classes(np.arange(30) % 3, ("a", "b", "c"))})
    with pytest.raises(ValueError, match="a measure tells two classes apart by its sign"):
        amnesic(tiny, three, eraser, task=lambda logits: logits[:, 0])
