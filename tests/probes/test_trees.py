"""Scores of trees: a perfect embedding, the linear chain, networkx and scipy as oracles."""

from __future__ import annotations

import networkx
import numpy as np
import pytest
from scipy.stats import spearmanr

from probes import trees
from probes.scores import measured


def heads_of(sizes: list[int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random trees, one after the other: heads as rows, and the text of each row."""
    draw, heads, text = np.random.default_rng(seed), [], []
    for t, size in enumerate(sizes):
        start, order = len(heads), draw.permutation(size)
        mine = np.full(size, -1)
        for i in range(1, size):
            mine[order[i]] = start + order[draw.integers(i)]
        heads += mine.tolist()
        text += [t] * size
    return np.array(heads), np.array(text)


def seen(heads: np.ndarray, text: np.ndarray) -> np.ndarray:
    return np.stack([trees.offsets(heads), text], 1)


def perfect(heads: np.ndarray) -> np.ndarray:
    """One axis per edge: squared distances are distances in the tree, squared lengths are depths."""
    points = np.zeros((len(heads), len(heads)))
    for row in range(len(heads)):
        at = row
        while heads[at] >= 0:
            points[row, at] = 1
            at = heads[at]
    return points


def test_a_perfect_embedding_has_perfect_scores() -> None:
    heads, text = heads_of([7, 5, 12, 6])
    y, z = seen(heads, text), perfect(heads)
    for name, metric in trees.METRICS.items():
        assert measured(metric, y, z, np.zeros(len(y))) == pytest.approx(1.0), name


def test_distances_and_spanning_trees_against_networkx() -> None:
    heads, _ = heads_of([15], seed=3)
    graph = networkx.Graph([(i, int(h)) for i, h in enumerate(heads) if h >= 0])
    found = trees.tree_distances(heads)
    for i, lengths in networkx.all_pairs_shortest_path_length(graph):
        assert all(found[i, j] == length for j, length in lengths.items())
    distances = np.random.default_rng(0).random((9, 9))
    distances = distances + distances.T
    whole = networkx.from_numpy_array(distances)
    expected = {(min(a, b), max(a, b)) for a, b in networkx.minimum_spanning_edges(whole, data=False)}
    assert trees.spanning_tree(distances) == expected
    assert (trees.tree_distances(np.array([-1, 0, -1, 2]))[:2, 2:] == -1).all()  # two trees


def test_scores_by_hand() -> None:
    heads, text = heads_of([6, 9], seed=5)
    z = np.random.default_rng(1).normal(size=(15, 3))
    y = seen(heads, text)
    right = edges = roots = 0
    per_length = []
    for rows in (slice(0, 6), slice(6, 15)):
        local = np.where(heads[rows] < 0, -1, heads[rows] - rows.start)
        gold = {(min(i, h), max(i, h)) for i, h in enumerate(local.tolist()) if h >= 0}
        told = ((z[rows][:, None] - z[rows][None]) ** 2).sum(-1)
        right += len(gold & trees.spanning_tree(told))
        edges += len(gold)
        roots += local[(z[rows] ** 2).sum(1).argmin()] == -1
        tree = trees.tree_distances(local)
        per_length.append(np.mean([spearmanr(tree[i], told[i]).statistic for i in range(len(local))]))
    fold = np.zeros(15)
    assert measured(trees.METRICS["uuas"], y, z, fold) == pytest.approx(right / edges)
    assert measured(trees.METRICS["root_accuracy"], y, z, fold) == pytest.approx(roots / 2)
    assert measured(trees.METRICS["distance_spearman"], y, z, fold) == pytest.approx(np.mean(per_length))


def test_weights_count_texts() -> None:
    heads, text = heads_of([6, 9, 7], seed=5)
    z = np.random.default_rng(1).normal(size=(22, 3))
    y, fold = seen(heads, text), np.zeros(22)
    weights = np.array([1.0, 0.0, 2.0])[text][None]
    twice = np.concatenate([np.arange(6), np.arange(15, 22), np.arange(15, 22)])
    again = seen(heads, text)[twice]
    again[13:, 1] = 3
    for name in ("uuas", "root_accuracy"):
        metric = trees.METRICS[name]
        assert metric.of(y, z, fold, weights)[0] == pytest.approx(
            measured(metric, again, z[twice], fold[:20])
        )


def test_the_linear_chain() -> None:
    heads = np.array([-1, 0, 1, 2, -1, 4, 5])
    text = np.array([0, 0, 0, 0, 1, 1, 1])
    chain = trees.linear_chain(text)
    assert chain[:, 0].tolist() == [0, 1, 2, 3, 0, 1, 2]
    y = seen(heads, text)
    assert measured(trees.METRICS["uuas"], y, chain, np.zeros(7)) == 1.0
    assert measured(trees.METRICS["root_accuracy"], y, chain, np.zeros(7)) == 1.0
    reversed_ = np.array([1, 2, 3, -1])
    assert (
        measured(trees.METRICS["root_accuracy"], seen(reversed_, np.zeros(4, int)), chain[:4], np.zeros(4))
        == 0.0
    )


def test_texts_too_short_have_no_rank_correlation() -> None:
    heads, text = heads_of([3, 1])
    y, z = seen(heads, text), np.random.default_rng(0).normal(size=(4, 2))
    assert np.isnan(measured(trees.METRICS["distance_spearman"], y, z, np.zeros(4)))
    assert not np.isnan(measured(trees.METRICS["uuas"], y, z, np.zeros(4)))
