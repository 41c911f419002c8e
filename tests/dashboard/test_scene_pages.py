"""Pages of images, of sources with targets and of encoders' texts: links, wrong addresses, what a person does there."""

from __future__ import annotations

import numpy as np
import pytest

from dashboard import image_sets, scene_heads
from dashboard.image_prompt import CORRUPT
from tests.dashboard.conftest import MODEL, settled
from tests.dashboard.test_pages import labels, texts

VIT, ED = "digits-vit", "reorder-ed"


def head_of(at) -> str:
    return next(s.value for s in at.main.get("subheader") if s.value[:1] in "aedx" and ".h" in s.value[:6])


# ---- links


def test_a_link_names_image_head_and_patch(app, empty_runs):
    at = app("heads", empty_runs, model=VIT, image="38", node="a1.h2", query="5")
    assert not at.warning
    assert head_of(at).startswith("a1.h2")
    assert any(s.value == "What row 1 column 0 looks at in each head" for s in at.subheader)
    assert "Image 38: shows 3" in texts(at.caption)
    assert at.selectbox(key="view_answer").value == "3" and at.selectbox(key="view_wrong").value == "2"
    assert labels(at)[-1] == "Take a1.h2 apart"


def test_a_link_names_a_head_of_any_group(app, empty_runs):
    for node in ("e0.h1", "d1.h3", "x1.h0"):
        at = app("head", empty_runs, model=ED, node=node, prompt="sort h o u s e")
        assert not at.warning and head_of(at).startswith(node)
        assert at.selectbox(key="scene_node").value == node


@pytest.mark.parametrize(
    ("page", "address", "message"),
    [
        ("heads", {"model": VIT, "image": "360"}, "there are 360 images, counted from 0"),
        ("heads", {"model": VIT, "image": "../3"}, "is no index of an image"),
        ("heads", {"model": VIT, "image": "u0123456789ab"}, "was uploaded to another server"),
        ("prompt", {"model": VIT, "other_image": "9999"}, "there are 360 images"),
        ("prompt", {"model": VIT, "answer": "eleven"}, "'eleven' is not a class of digits-vit"),
        ("head", {"model": VIT, "query": "17"}, "there are 17 positions to look from"),
        ("head", {"model": VIT, "node": "x0.h0"}, "digits-vit has one stack"),
        ("heads", {"model": VIT, "node": "a2.h0"}, "which has a0.h0 to a1.h3"),
        ("heads", {"model": ED, "node": "a0.h0"}, "which has e0.h0 to e1.h3, d0.h0 to d1.h3, x0.h0 to x1.h3"),
        ("head", {"model": ED, "node": "x9.h0"}, "x9.h0 is not a head of reorder-ed"),
        ("head", {"model": ED, "node": "x1.h2", "beside": "x1.h1"}, "cannot stand beside"),
        ("prompt", {"model": ED, "query": "6"}, "there are 6 positions"),
        ("heads", {"model": MODEL, "node": "e0.h1"}, "induction-2l has one stack"),
    ],
)
def test_a_wrong_address_is_refused_with_one_message(app, empty_runs, page, address, message):
    at = app(page, empty_runs, **address)
    assert message in texts(at.warning)
    assert len(at.warning) == 1 and not at.error
    wrong = [name for name in address if name not in ("model", "node")] or ["node"]
    assert wrong[0] not in at.query_params
    assert at.main.get("bidi_component"), "the rest of the page is there"


def test_words_that_the_tokenizer_lacks_are_one_line(app, empty_runs):
    at = app("heads", empty_runs, model=ED, prompt="reverse t h e Moon")
    assert "'Moon' is not a word" in texts(at.error)
    assert "see the sidebar" in texts(at.info)
    assert labels(at)[-1] == "Begin with a question"


# ---- what a person does


def test_another_image_makes_its_own_answer(app, empty_runs):
    at = app("prompt", empty_runs, model=VIT, image="38", answer="8")
    assert at.selectbox(key="view_answer").value == "8"
    at.number_input(key="index_image").set_value(12)
    at = settled(at)
    assert at.query_params["image"] == ["12"] or at.query_params["image"] == "12"
    assert "answer" not in at.query_params
    assert at.selectbox(key="view_answer").value == "3"


def test_an_uploaded_image_is_looked_at(app, empty_runs):
    import lens

    key = image_sets.take_in(lens.load(VIT), "mine.npy", _npy(np.eye(8)))
    at = app("prompt", empty_runs, model=VIT, image=key)
    assert not at.warning and not at.error
    assert "Image uploaded" in texts(at.caption)
    assert at.main.get("bidi_component")


def _npy(array: np.ndarray) -> bytes:
    import io

    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def test_patches_of_the_counterfactual_can_be_put_in(app, empty_runs):
    at = app("prompt", empty_runs, model=VIT, image="38")
    assert "when that patch is blanked" in texts(at.caption)
    next(g for g in at.button_group if g.key == "occlude_2").set_value(CORRUPT)
    at = settled(at)
    assert not at.exception
    assert "when that patch is the counterfactual's" in texts(at.caption)


def test_a_head_is_taken_away(app, empty_runs):
    at = app("head", empty_runs, model=ED, node="x0.h1", prompt="reverse h o u s e")
    frame = at.dataframe[-1].value
    assert frame["token said"].tolist() == ["e", "s", "u", "o", "h", "<eos>"]
    before = at.metric[0].value
    next(g for g in at.button_group if g.key.startswith("scene_ablate")).set_value("zero")
    at = settled(at)
    assert float(at.metric[0].value) < -1 < float(before)
    assert np.allclose(at.dataframe[-1].value["without"].sum(), float(at.metric[0].value), atol=1e-2)


def test_class_probabilities_without_a_head(app, empty_runs):
    at = app("head", empty_runs, model=VIT, image="38", node="a1.h0")
    frame = at.dataframe[-1].value
    assert frame["with"].sum() == pytest.approx(1, abs=1e-4)
    assert frame["without"].sum() == pytest.approx(1, abs=1e-4)
    assert frame["class"].tolist() == [str(i) for i in range(10)]


def test_the_counterfactual_stands_beside_a_head(app, empty_runs):
    for address in ({"model": VIT, "image": "38"}, {"model": ED}):
        at = app("head", empty_runs, **address, beside="counterfactual")
        assert any(s.value.endswith("on the counterfactual") for s in at.subheader)
        assert not at.warning


def test_every_head_is_taken_away_and_listed(app, empty_runs):
    at = app("heads", empty_runs, model=ED)
    frame = at.dataframe[-1].value
    assert len(frame) == 24 and frame["without it"].abs().is_monotonic_decreasing
    assert frame.loc[frame["head"].str.startswith("e"), "said next"].isna().all()
    assert frame.notna().any().all(), "no column without a number"
    assert [s.value for s in at.subheader][:3] == [
        "Encoder: source to source", "Decoder: target to target", "Cross-attention: target to source",
    ]  # fmt: skip


def test_what_the_model_says_to_both_sources(app, empty_runs):
    at = app("prompt", empty_runs, model=ED, prompt="sort h o u s e", corrupt="sort m o u s e", query="1")
    assert "Having said: e (position 1 of 6" in texts(at.caption)
    at = app("prompt", empty_runs, model=ED, prompt="sort h o u s e", answer="e o h s u")
    assert "Having said: nothing yet" in texts(at.caption)
    assert at.text_area(key="view_answer").value == "e o h s u"


def test_own_texts_of_another_model_are_no_classes(app, empty_runs):
    at = app("heads", empty_runs, model=VIT, prompt="the ship", answer="moved")
    assert not at.warning and not at.error
    assert at.selectbox(key="view_answer").value == "0"


@pytest.mark.parametrize(
    ("values", "form"), [([-8.5, 0.001], "%+.3f"), ([-3e-5, np.nan], "%+.1e"), ([], "%+.1e")]
)
def test_small_changes_are_not_written_as_zero(values, form):
    assert scene_heads.signed(np.array(values)) == form
