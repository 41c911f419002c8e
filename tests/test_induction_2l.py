"""The model that ships with the project: its card tells the truth, and it holds the circuit of its name."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import lens
from lens.head_scores import head_scores
from lens.load import available
from lens.model import Transformer
from lens.shipped import induction_2l, induction_text
from lens.shipped.induction_text import Mixture, documents, refrains, repeated, sentences, words
from lens.train import Recipe, revision_of

FOLDER = Path(induction_2l.__file__).parent / "induction-2l"
FILES = {"card.json", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
PROMPT = "the old king gave a golden ring . Mary saw the old king"


@pytest.fixture(scope="module")
def card() -> dict[str, Any]:
    return json.loads((FOLDER / "card.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def measured(induction: Transformer) -> dict[str, Any]:
    return induction_2l.measure(induction)


def leaves(value: Any, path: str = "") -> dict[str, float]:
    """Every number in nested dicts and lists, by its path."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {k: v for key, inner in items for k, v in leaves(inner, f"{path}/{key}").items()}
    return {path: value}


def test_the_folder_is_whole_and_small() -> None:
    assert {path.name for path in FOLDER.iterdir()} == FILES
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 2 * 2**20


def test_files_are_those_of_the_script(induction: Transformer, card: dict[str, Any]) -> None:
    assert induction.cfg == induction_2l.config()
    assert induction.cfg.attn_only
    assert revision_of(induction.state_dict()) == card["weights"]
    assert card["recipe"] == json.loads(json.dumps(vars(induction_2l.MAKING.recipe)))
    assert card["mixture"] == json.loads(json.dumps(vars(induction_2l.MIXTURE)))
    assert card["licence"] == "MIT"
    made, shipped = induction_2l.tokenizer(), induction.tokenizer
    assert shipped.encode(PROMPT, add_special=True) == made.encode(PROMPT, add_special=True)


def test_loss_curve_falls(card: dict[str, Any]) -> None:
    curve = card["loss_curve"]
    assert len(curve["loss"]) == -(-card["recipe"]["steps"] // curve["every"])
    assert curve["loss"][-1] < curve["loss"][0] / 2


def test_the_card_is_what_is_measured(card: dict[str, Any], measured: dict[str, Any]) -> None:
    said, found = leaves(card["measured"]), leaves(measured)
    assert said.keys() == found.keys()
    off = {path: (said[path], found[path]) for path in said if abs(said[path] - found[path]) > 2e-3}
    assert not off


def test_it_copies_what_it_has_read_and_nothing_else(measured: dict[str, Any]) -> None:
    said = measured["copying"]
    assert said["accuracy_second"] >= 0.9
    assert said["accuracy_first"] <= 0.05
    assert said["loss_first"] - said["loss_second"] >= 4  # nats


def test_heads_are_clear(measured: dict[str, Any]) -> None:
    scores = measured["head_scores"]
    assert max(scores["previous_token"][0]) >= 0.7
    assert sorted(scores["previous_token"][0])[-2] <= 0.3  # one head alone
    assert max(scores["induction"][1]) >= 0.6
    assert max(scores["induction"][0]) <= 0.1  # one layer cannot


def test_without_the_previous_token_head_nothing_is_copied(induction: Transformer) -> None:
    ids = repeated(64, 20, seeded(5))
    scores = head_scores(induction.activations(ids, "pattern").stack("pattern"), ids)
    head = int(scores["previous_token"][0].argmax())
    whole = induction_2l.copying(induction, ids)["accuracy_second"]
    without = induction_2l.copying(induction, ids, induction_2l.without_head(0, head))
    assert whole >= 0.9
    assert without["accuracy_second"] <= 0.25
    others = [h for h in range(induction.cfg.n_heads) if h != head]
    for h in others:
        edits = induction_2l.without_head(0, h)
        assert induction_2l.copying(induction, ids, edits)["accuracy_second"] >= 0.8


def test_it_reads_text(induction: Transformer) -> None:
    logits = induction(PROMPT)
    assert induction.to_str_tokens(PROMPT)[:4] == ["<bos>", "the", "old", "king"]
    assert logits.shape == (1, 1 + len(PROMPT.split()), len(words()))
    assert induction.to_string(logits[0, -1].argmax()[None]) == "gave"
    with pytest.raises(ValueError, match="'kings' is not a word of this tokenizer; did you mean 'king'"):
        induction("the kings")


def test_lens_knows_it(induction: Transformer) -> None:
    known = {k.name: k for k in available()}["induction-2l"]
    assert (known.status, known.licence) == ("shipped", "MIT")
    assert known.description == induction_2l.MAKING.description
    assert induction.origin
    assert induction.revision.startswith("sha256:")


# ---------------------------------------------------------------------- the text


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_words_are_different_and_every_one_can_be_written() -> None:
    assert len(set(words())) == len(words())
    assert 200 <= len(words()) <= 400
    ids = sentences(400, 64, seeded(), Mixture(rate=0.0))
    assert set(ids[:, 1:].unique().tolist()) == set(range(1, len(words())))


def test_sentences_follow_the_grammar() -> None:
    kind = ["full stop", *(c for c, text in induction_text.CLASSES.items() for _ in text.split())]
    for row in sentences(50, 64, seeded(), Mixture(rate=0.0)).tolist():
        for a, b in itertools.pairwise(row):
            assert kind[b] in induction_text.GRAMMAR[kind[a]]


def test_documents_begin_with_bos_and_come_from_the_seed() -> None:
    first, again, other = (documents(9, 30, seeded(s)) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert (first[:, 0] == 0).all()
    assert (first[:, 1:] > 0).all()


def test_documents_are_mixed_as_asked() -> None:
    """A refrain has at most `longest` different words; the first half of a sentence document has more."""
    ids = documents(40, 64, seeded(), Mixture(refrains=0.25, longest=12, rate=0.0))
    assert [len(set(row)) <= 13 for row in ids.tolist()] == [True] * 10 + [False] * 30


def test_sentences_repeat_spans_at_varying_distance() -> None:
    def distances(rate: float) -> list[int]:
        """How far back the same eight words stood."""
        found = []
        for row in sentences(50, 64, seeded(3), Mixture(rate=rate)).tolist():
            seen: dict[tuple[int, ...], int] = {}
            for i in range(1, 57):
                key = tuple(row[i : i + 8])
                if key in seen:
                    found.append(i - seen[key])
                seen[key] = i
        return found

    assert len(distances(0.0)) == 0
    assert len(distances(0.3)) > 400
    assert len(set(distances(0.3))) > 20


def test_refrains_repeat_different_words_with_varying_period() -> None:
    periods = []
    for row in refrains(60, 64, seeded(), Mixture(shortest=8, longest=31)).tolist():
        period = row.index(row[1], 2) - 1
        periods.append(period)
        assert row[1 + period :] == row[1:-period]
        assert len(set(row)) == period + 1
    assert (min(periods), max(periods)) == (8, 31)


def test_repeated_documents_repeat_different_words() -> None:
    ids = repeated(10, 24, seeded(), times=2)
    assert ids.shape == (10, 49)
    assert torch.equal(ids[:, 1:25], ids[:, 25:])
    assert all(len(set(row)) == 25 and row[0] == 0 for row in ids[:, :25].tolist())


# ---------------------------------------------------------------------- the script


def test_the_script_makes_a_folder_that_loads(tmp_path: Path) -> None:
    recipe = Recipe(steps=30, batch_size=8, warmup=3, seed=3)
    card = induction_2l.MAKING.make(tmp_path / "made", recipe)
    first, last = card["loss_curve"]["loss"]
    assert 4 < last < first < 7
    model = lens.load(tmp_path / "made")
    assert revision_of(model.state_dict()) == card["weights"]
    assert model.to_str_tokens("Mary saw the dog .") == ["<bos>", "Mary", "saw", "the", "dog", "."]
    assert json.loads((tmp_path / "made" / "card.json").read_text(encoding="utf-8")) == json.loads(
        json.dumps(card)
    )


def test_the_script_refuses_a_folder_that_exists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        induction_2l.MAKING.main(["--out", str(tmp_path)])
    assert stopped.value.code == 2
    assert "already exists" in capsys.readouterr().err


def test_the_script_refuses_no_steps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        induction_2l.MAKING.main(["--out", str(tmp_path / "new"), "--steps", "0"])
    assert stopped.value.code == 2
    assert "steps is 0" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
