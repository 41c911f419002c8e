"""How well points in a probe's space tell dependency trees (Hewitt, Manning 2019, A Structural Probe).

Distance between two words: squared distance of their points; it stands for the number of edges between them. Depth of
a word: squared length of its point.

`uuas`          share of the edges that the minimum spanning tree of the distances has, all texts together
`distance_spearman`   rank correlation of a word's distances to the other words of its text with those in the tree;
                mean over the words of all texts of one length, then over lengths (5 to 50 in the paper)
`root_accuracy` share of the texts whose least deep word is the root
`depth_spearman`      rank correlation of depths in a text; mean over texts of one length, then over lengths

They are metrics of `probes.scores`: y is int [n, 2], how many rows on each row's head is (0 for a root; this stays
true when texts are left out) and its text; points z [n, r]; a text's weight is that of its first row.

Letters: n rows, w words of a text, r resamples or the rank of a probe, s texts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from probes.scores import Metric

SHORTEST, LONGEST = 5, 50  # lengths that the rank correlations are averaged over


def texts_of(text: np.ndarray) -> list[np.ndarray]:
    """The rows of each text, which are contiguous."""
    return np.split(np.arange(len(text)), np.flatnonzero(np.diff(text)) + 1)


def tree_distances(heads: np.ndarray) -> np.ndarray:
    """Edges between any two words of one text, int [w, w]; −1 for words in different trees.

    Args:
        heads: int [w], the place of each word's head in the text, −1 for a root.
    """
    w = len(heads)
    found = np.full((w, w), -1)
    beside: list[list[int]] = [[] for _ in range(w)]
    for word, head in enumerate(heads.tolist()):
        if head >= 0:
            beside[word].append(head)
            beside[head].append(word)
    for start in range(w):
        found[start, start] = 0
        reached = [start]
        for word in reached:
            for other in beside[word]:
                if found[start, other] < 0:
                    found[start, other] = found[start, word] + 1
                    reached.append(other)
    return found


def spanning_tree(distances: np.ndarray) -> set[tuple[int, int]]:
    """The edges (smaller, larger) of a minimum spanning tree of distances [w, w], by Prim's algorithm."""
    w = len(distances)
    near, source = distances[0].astype(float).copy(), np.zeros(w, dtype=int)
    outside = np.arange(w) > 0
    edges = set()
    for _ in range(w - 1):
        word = int(np.where(outside, near, np.inf).argmin())
        edges.add((min(word, int(source[word])), max(word, int(source[word]))))
        outside[word] = False
        closer = outside & (distances[word] < near)
        near[closer], source[closer] = distances[word][closer], word
    return edges


def linear_chain(text: np.ndarray) -> np.ndarray:
    """Points [n, 1] of the floor in which every word hangs on the one before it."""
    return np.concatenate([np.arange(len(rows), dtype=float) for rows in texts_of(text)])[:, None]


def _squared(z: np.ndarray) -> np.ndarray:
    """Squared distances [w, w]."""
    return ((z[:, None] - z[None]) ** 2).sum(-1)


def _sentences(y: np.ndarray, z: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Heads within the text [w] and points [w, r] of each text."""
    for rows in texts_of(y[:, 1]):
        yield _places(y[rows, 0]), z[rows]


def _places(onwards: np.ndarray) -> np.ndarray:
    """Heads as places in the text, −1 for a root."""
    return np.where(onwards == 0, -1, np.arange(len(onwards)) + onwards)


def offsets(heads: np.ndarray) -> np.ndarray:
    """How many rows on each row's head is, 0 for a root: what stays the same when texts are left out."""
    return np.where(heads < 0, 0, heads - np.arange(len(heads)))


def _text_weights(y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return weights[:, [rows[0] for rows in texts_of(y[:, 1])]]


def uuas(y: np.ndarray, z: np.ndarray, fold: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Undirected unlabelled attachment score, [r]."""
    counts = []
    for heads, points in _sentences(y, z):
        gold = {(min(i, h), max(i, h)) for i, h in enumerate(heads.tolist()) if h >= 0}
        told = spanning_tree(_squared(points)) if len(points) > 1 else set()
        counts.append((len(gold & told), len(gold)))
    right, edges = np.array(counts, dtype=float).T
    w = _text_weights(y, weights)
    return np.divide(w @ right, w @ edges, out=np.full(len(w), np.nan), where=w @ edges > 0)


def root_accuracy(y: np.ndarray, z: np.ndarray, fold: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Share of texts with the right root, [r]."""
    right = [heads[(points**2).sum(1).argmin()] < 0 for heads, points in _sentences(y, z)]
    w = _text_weights(y, weights)
    return w @ np.array(right, dtype=float) / w.sum(1)


def distance_spearman(y: np.ndarray, z: np.ndarray, fold: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Rank correlation of distances, [r]."""

    def of(heads: np.ndarray, points: np.ndarray) -> float:
        gold, told = tree_distances(heads), _squared(points)
        each = [_spearman(gold[i][gold[i] >= 0], told[i][gold[i] >= 0]) for i in range(len(heads))]
        return float(np.nanmean(each)) if not np.isnan(each).all() else float("nan")

    return _by_length(y, z, weights, of)


def depth_spearman(y: np.ndarray, z: np.ndarray, fold: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Rank correlation of depths, [r]."""

    def of(heads: np.ndarray, points: np.ndarray) -> float:
        depths, at = np.zeros(len(heads)), heads
        while (at >= 0).any():
            depths += at >= 0
            at = np.where(at >= 0, heads[at], -1)
        return _spearman(depths, (points**2).sum(1))

    return _by_length(y, z, weights, of)


METRICS = {
    metric.name: metric
    for metric in (
        Metric("uuas", "heads", uuas),
        Metric("distance_spearman", "heads", distance_spearman),
        Metric("root_accuracy", "heads", root_accuracy),
        Metric("depth_spearman", "heads", depth_spearman),
    )
}

USUAL = {"distance": ("uuas", "distance_spearman"), "depth": ("depth_spearman", "root_accuracy")}
"""The metrics of probes of distances and of depths, the one to choose by first."""


def _by_length(
    y: np.ndarray, z: np.ndarray, weights: np.ndarray, of: Callable[[np.ndarray, np.ndarray], float]
) -> np.ndarray:
    values, lengths = [], []
    for heads, points in _sentences(y, z):
        inside = SHORTEST <= len(heads) <= LONGEST
        values.append(of(heads, points) if inside else float("nan"))
        lengths.append(len(heads))
    value, length = np.array(values), np.array(lengths)
    w = _text_weights(y, weights)
    means = []
    for each in np.unique(length[~np.isnan(value)]):
        here = (length == each) & ~np.isnan(value)
        mass = w[:, here].sum(1)
        means.append(np.divide(w[:, here] @ value[here], mass, out=np.full(len(w), np.nan), where=mass > 0))
    if not means:
        return np.full(len(w), np.nan)
    found = np.stack(means)
    known = ~np.isnan(found)
    total = known.sum(0)
    return np.divide(np.where(known, found, 0).sum(0), total, out=np.full(len(w), np.nan), where=total > 0)


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    """NaN where either is constant."""
    from scipy.stats import rankdata

    ranks_a, ranks_b = rankdata(a) - (len(a) + 1) / 2, rankdata(b) - (len(b) + 1) / 2
    spread = float(np.sqrt((ranks_a**2).sum() * (ranks_b**2).sum()))
    return float(ranks_a @ ranks_b) / spread if spread > 0 else float("nan")
