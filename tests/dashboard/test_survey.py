"""What the Heads page computes, against the plain way."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dashboard import survey
from dashboard.figures.attention import without_sink
from dashboard.figures.head_kinds import KINDS
from dashboard.figures.montage import pool
from dashboard.models import Shelf
from lens.head_scores import head_scores
from lens.progress import Cancelled


def test_a_survey_is_what_a_cached_run_gives(induction):
    ids = survey.repeated_ids(induction, 12)
    found = survey.survey(induction, ids)
    _, cache = induction.run_with_cache(torch.tensor([ids]), ["pattern"])
    for layer in range(induction.cfg.n_layers):
        pattern = cache["pattern", layer]
        scores = head_scores(pattern, torch.tensor([ids]))
        expected = np.stack([scores[kind.score].numpy() for kind in KINDS], 1)
        assert np.allclose(found.scores[layer], expected, atol=1e-6)
        assert np.array_equal(found.tiles[layer], pool(pattern[0].numpy()))
        assert np.array_equal(found.without_sink[layer], pool(without_sink(pattern[0].numpy())))
        assert np.allclose(survey.layer_patterns(induction, ids, layer), pattern[0].numpy(), atol=1e-6)


def test_a_survey_reports_and_can_be_cancelled(induction):
    seen = []

    def stop_after_one(done, total, label):
        seen.append((done, total))
        if done == 1:
            raise Cancelled

    with pytest.raises(Cancelled):
        survey.survey(induction, survey.repeated_ids(induction, 8), stop_after_one)
    assert seen == [(0, 2), (1, 2)]


def test_repeated_tokens_repeat_and_fit(induction):
    ids = survey.repeated_ids(induction, 10_000)
    assert len(ids) <= induction.cfg.n_ctx
    half = len(ids) // 2
    assert ids[-half:] == ids[-2 * half : -half]
    assert len(set(ids[-half:])) == half
    assert ids == survey.repeated_ids(induction, 10_000)


def test_the_shelf_loads_once_and_holds_a_few():
    loaded = []

    def load(name, progress):
        loaded.append(name)
        return object()

    shelf = Shelf(load, most=2)
    first = shelf.get("a", print)
    assert shelf.get("a", print) is first
    shelf.get("b", print)
    shelf.get("a", print)
    shelf.get("c", print)
    assert loaded == ["a", "b", "c"]
    assert shelf.loaded("b") is None
    assert shelf.loaded("a") is first


@pytest.mark.parametrize("ids", [[5], [5, 5], [5, 5, 5], [1, 2, 3, 2, 2, 3, 1], [1, 2, 3, 4]])
def test_scores_are_means_over_as_many_positions_as_it_says(ids):
    """The oracle: a position is one of a score's where attention of that query alone changes the score."""
    n, counts = len(ids), [0] * len(KINDS)
    for query in range(n):
        pattern = torch.zeros(1, 1, n, n)
        pattern[0, 0, query] = 0.5
        found = head_scores(pattern, torch.tensor([ids]))
        for i, kind in enumerate(KINDS):
            counts[i] += bool(found[kind.score][0] > 0)
    assert survey.n_queries(ids) == counts
