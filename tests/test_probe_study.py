"""The study of probes: its own arithmetic, and a page that says what the figures say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import probes
from benchmarks.study.keeping import Kept
from benchmarks.study.probes import (
    causal,
    encoded_page,
    part_of_speech,
    sentiment,
    setting,
    space,
    studying,
    trees,
)
from benchmarks.study.probes.causal_page import causal as causal_lines
from benchmarks.study.probes.section import section
from lens.progress import silent
from tests.probes.conllu_file import write


def scored(score: float, low: float, high: float, **more: Any) -> dict[str, Any]:
    return {"score": score, "low": low, "high": high, **more}


def test_distances_on_the_globe() -> None:
    berlin, paris, pole = np.array([[52.52, 13.405]]), np.array([[48.857, 2.352]]), np.array([[90.0, 77.0]])
    assert space.kilometres(berlin, paris)[0] == pytest.approx(878, abs=3)
    assert space.kilometres(np.zeros((1, 2)), pole)[0] == pytest.approx(6371 * np.pi / 2)
    assert space.kilometres(berlin, berlin)[0] == 0


def test_transfers_never_fit_what_they_judge() -> None:
    sources = np.array(["words", "words", "movies", "tweets", "movies"])
    data = probes.Labelled(
        "x", tuple("abcde"), np.arange(5), None, {"y": probes.Classes(np.array([0, 1, 0, 1, 1]), ("n", "p"))},
        columns={"source": sources},
    )  # fmt: skip
    found = sentiment.transfers(data)
    assert list(found) == [
        "words → sentences", "sentences → words", "other sentences → movies", "other sentences → tweets",
    ]  # fmt: skip
    assert found["words → sentences"].train.tolist() == [0, 1]
    assert found["other sentences → movies"].train.tolist() == [3]
    assert found["other sentences → movies"].test.tolist() == [2, 4]
    for fold in found.values():
        assert not set(fold.train) & set(fold.test)


def test_judged_words_are_whole_families(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(causal, "JUDGED", 10)
    names = [f"f{i // 3}" for i in range(60)]
    words = probes.Labelled.of([f"w{i}" for i in range(60)], [i % 2 for i in range(60)], names)
    chosen = causal.chosen(words)
    assert 8 <= chosen.sum() <= 12
    assert not {n for n, c in zip(names, chosen, strict=True) if c} & {
        n for n, c in zip(names, chosen, strict=True) if not c
    }


def test_an_erased_concept_gains_nothing_on_its_own_rows() -> None:
    x = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).long()
    assert causal.own_rows(x, y) > 0.1
    eraser = probes.fit_eraser("leace", x, y)
    assert abs(causal.own_rows(eraser(x), y)) < 1e-6


def test_trees_are_judged_as_the_floor_says(tmp_path: Path) -> None:
    """The linear chain in a treebank: every edge between neighbours is right, every other wrong."""
    from probes.trees import linear_chain

    data = probes.load_dataset("dependencies", path=write(tmp_path / "a.conllu"), n=None).only("heads")
    heads = data.target()
    assert isinstance(heads, probes.Heads)
    found = trees.judged(data, np.arange(data.n), linear_chain(data.text))
    edges = [(i, int(h)) for i, h in enumerate(heads.heads) if h >= 0]
    assert found["uuas"]["score"] == pytest.approx(np.mean([abs(i - h) == 1 for i, h in edges]))


def test_rare_tags_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_of_speech, "LEAST", 2)
    data = probes.Labelled.of(["a", "b", "c"], ["X", "Y", "X"])
    assert part_of_speech.kept(data).n == 2


def test_showcases_are_named_and_some_need_a_treebank() -> None:
    with pytest.raises(ValueError, match="thruth"):
        studying.study(["thruth"], None, False, silent)
    with pytest.raises(ValueError, match="needs --treebank"):
        studying.study(["structural"], None, False, silent)


def test_pieces_are_made_once_and_again_on_demand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    monkeypatch.setattr(studying, "SHOWS", {"truth": lambda progress: made.append("truth") or {"x": 1.0}})
    monkeypatch.setattr(studying, "OF_TREEBANKS", {})
    monkeypatch.setattr(studying, "Kept", lambda name, settings: Kept(name, settings, tmp_path))
    for again in (False, False, True):
        studying.study([], None, again, silent)
    assert made == ["truth", "truth"]
    assert '"x": 1.0' in (tmp_path / f"{setting.NAME}.json").read_text()


def test_what_is_not_known_is_left_out() -> None:
    assert setting.plain({"a": np.float64(1), "b": float("nan"), "c": None, "d": "x"}) == {"a": 1.0, "d": "x"}


# ---- the page


def truth_piece(negated: dict[str, Any]) -> dict[str, Any]:
    good = scored(0.9, 0.8, 0.95)
    row = {
        "layer": 12,
        **good,
        "floor_surface": 0.5,
        "floor_layer-0": 0.5,
        "floor_random-init": 0.55,
        "p_value": 0.05,
    }
    return {
        "about": {"rows": 8, "groups": 4, "judged": 6, "example": ["A is in B.", "A is not in B."]},
        "curve": [row], "inside": {**good, "layers": "12, 12"}, "permutations": 19,
        "mass-mean": [{"layer": 12, **good}],
        "negation": [{"layer": 12, "statements → statements": good, "statements → negations": negated,
                      "both → statements": good, "both → negations": good}],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("negated", "says"),
    [
        (scored(0.1, 0.05, 0.2), "the wrong way round"),
        (scored(0.5, 0.3, 0.7), "does not tell true from false negations"),
        (scored(0.9, 0.8, 0.95), "rightly"),
    ],
)
def test_what_the_page_says_of_negations_follows_from_the_interval(
    negated: dict[str, Any], says: str
) -> None:
    text = "\n".join(encoded_page.truth(truth_piece(negated)))
    assert says in text and "| 12 | 0.900 [0.800, 0.950] |" in text


def test_chance_after_erasure_and_the_monotone_range_follow_from_the_figures() -> None:
    def line(erasure: str, score: float) -> dict[str, Any]:
        return {
            "erasure": erasure, "rank": 1, "score": score, "score_low": score - 0.02, "score_high": score + 0.02,
            "increase": 0.1, "increase_low": 0.05, "increase_high": 0.2,
        }  # fmt: skip

    erased = {
        "lines": [line("none", 0.9), line("leace", 0.51)], "saving": [0.2, 0.1, 0.3], "floor": 0.5, "rank": 1,
        "rows": 9, "tokens": 99, "own rows": 1e-9, "equal effect asked": True,
    }  # fmt: skip
    curve = {
        "doses": [-1, 0, 1], "mean": [0.0, 1.0, 2.0], "interval": [[0, 1]] * 3, "loss": [3.0] * 3, "spearman": 1.0,
        "monotone": {"low": -1, "high": 1, "sign": 1},
    }  # fmt: skip
    other, flat = erased | {"lines": [line("none", 0.9), line("x", 0.7)]}, curve | {"monotone": None}
    fitted = [scored(0.7, 0.65, 0.75, rows=10), scored(0.55, 0.5, 0.6, rows=90)]
    piece = {
        "about": {"layer": 3, "fitted": 10, "width": 8},
        "erasure": {"texts": 2, "draws": 2, "LEACE": erased, "other": other, "by rows fitted": fitted},
        "steering": {"prompts": ["a"], "good": [" g"], "bad": [" b"], "probe": curve, "random": flat},
    }  # fmt: skip
    text = "\n".join(causal_lines(piece))
    assert (
        "LEACE: probes of new words are at chance" in text
        and "other: probes of new words are not at chance" in text
    )
    assert "rises monotonically, within noise, from -1 to 1, all doses tried" in text
    assert "random: monotone nowhere" in text and "what is left falls with the rows" in text


def test_the_section_holds_only_what_there_is() -> None:
    held = {"settings": {"C": [0.1]}, "pieces": {"truth": truth_piece(scored(0.1, 0.05, 0.2))}}
    text = "\n".join(section(held))
    assert "### Truth" in text and "### Space" not in text
