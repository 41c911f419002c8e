"""What all pages look at: a pair of a task, or a person's own words."""

from __future__ import annotations

import pytest
import torch

from circuits.tasks import tasks
from dashboard import subject
from dashboard.state import View
from dashboard.subject import EXAMPLES, Words, made, of_pairs, of_words, own, preset, single, text_of

CLEAN, CORRUPT = "the ship moved so the ship", "the coat moved so the ship"


def test_own_texts_are_those_in_the_address():
    assert not own(View(task="ioi", example=3))
    assert own(View(prompt=""))
    assert own(View(wrong="x"))


def test_the_pairs_of_a_task_and_the_one_looked_at(induction):
    pairs, example = preset(induction, tasks()["induction"], 5)
    assert (len(pairs), example) == (EXAMPLES, 5)
    assert preset(induction, tasks()["induction"], 10_000)[1] == EXAMPLES - 1
    found = of_pairs("induction-2l", induction, pairs, 5, None, "Induction")
    assert found.ids == pairs.clean[5].tolist()
    assert found.batch is pairs and found.pairs is not None and len(found.pairs) == 1
    assert found.metric == "logit_diff"
    assert found.words.clean == text_of(induction, pairs.clean[5])
    assert not found.words.clean.startswith("<bos>")


def test_words_of_a_pair_make_the_same_pair_again(induction):
    pairs, _ = preset(induction, tasks()["induction"], 0)
    words = of_pairs("induction-2l", induction, pairs, 2, None, "").words
    again = made(induction, words)
    for name in ("clean", "corrupt"):
        assert torch.equal(getattr(again, name), getattr(pairs[2], name))
    assert again.answers.flatten().tolist() == pairs[2].answers.flatten().tolist()


def test_own_words_make_a_pair_or_say_what_is_missing(induction):
    def why(**words: str) -> str:
        found = of_words("induction-2l", induction, Words(**words), None)
        assert found.pairs is None and found.batch is None
        return found.why

    assert why(clean=CLEAN) == "there is no counterfactual prompt yet"
    assert why(clean=CLEAN, corrupt=CORRUPT) == "there is no answer token yet"
    assert why(clean=CLEAN, corrupt="the coat", answer="moved") == (
        "the clean prompt has 7 tokens and the counterfactual 3; they must be equally long"
    )
    assert "xyzzy" in why(clean=CLEAN, corrupt=CORRUPT, answer="xyzzy")
    assert why(clean=CLEAN, corrupt=CLEAN, answer="moved") == (
        "the clean prompt and the counterfactual are the same"
    )
    found = of_words("induction-2l", induction, Words(CLEAN, CORRUPT, "moved", "ship|so"), None)
    assert found.why == "" and found.pairs is not None
    assert found.pairs.wrong.flatten().tolist() == [induction.to_single_token(w) for w in ("ship", "so")]


@pytest.mark.parametrize("text", ["", "   ", "\n\t"])
def test_an_empty_prompt_is_refused(induction, text):
    with pytest.raises(ValueError, match="The prompt is empty"):
        of_words("induction-2l", induction, Words(text), None)


def test_a_prompt_longer_than_the_context_is_refused(induction):
    with pytest.raises(ValueError, match=f"reads at most {induction.cfg.n_ctx}"):
        of_words("induction-2l", induction, Words(induction.to_string([20] * 99)), None)


def test_the_usual_metric_needs_no_wrong_answer(induction):
    with_wrong = of_words("m", induction, Words(CLEAN, CORRUPT, "moved", "so"), None)
    without = of_words("m", induction, Words(CLEAN, CORRUPT, "moved"), None)
    assert (with_wrong.metric, without.metric) == ("logit_diff", "log_prob")
    assert of_words("m", induction, Words(CLEAN), "rank").metric == "rank"
    assert set(subject.metrics(differentiable=True)) < set(subject.metrics())


def test_keys_tell_subjects_apart(induction):
    words = Words(CLEAN, CORRUPT, "moved", "so")
    one = of_words("m", induction, words, None)
    assert one.key("x") == of_words("m", induction, words, None).key("x")
    others = [
        of_words("n", induction, words, None),
        of_words("m", induction, words, "log_prob"),
        of_words("m", induction, Words(CLEAN, CORRUPT, "so", "moved"), None),
        of_words("m", induction, Words(CLEAN), "logit_diff"),
    ]
    assert len({one.key("x"), one.key("y"), *(other.key("x") for other in others)}) == 6


@pytest.mark.model
@pytest.mark.slow
def test_a_word_is_one_token_with_or_without_its_space(smollm2):
    assert single(smollm2, "Mary") == smollm2.to_single_token("Mary")
    assert single(smollm2, " Mary") == smollm2.to_single_token(" Mary")
    with pytest.raises(ValueError, match="not a single token"):
        single(smollm2, "antidisestablishmentarianism")


def test_markup_in_words_stays_text(induction):
    with pytest.raises(ValueError, match="<script>"):
        of_words("m", induction, Words("<script>alert(1)</script>"), None)
