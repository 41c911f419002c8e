"""What is computed of images, sources with targets and encoders' texts, against the plain way of doing it."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch

import lens
from dashboard import group_survey, head_groups, image_reading, image_sets, outcomes, scene, text_reading
from dashboard.group_survey import scores_of
from dashboard.head_groups import find, groups_of, node_name
from lens.inputs import ModelInputs
from lens.model import Transformer
from tests.dashboard import specimens
from tests.dashboard.specimens import OTHER, SPECIMENS, TEXT


@pytest.fixture(scope="module")
def digits():
    """A three, and a two as its counterfactual."""
    model = lens.load("digits-vit")
    known = image_sets.test_images(model.cfg)
    assert known is not None
    return scene.of_image(
        "digits-vit", model, known.images[38], known.images[10], classes=image_sets.classes_of(model.cfg),
        answer=3, wrong=2,
    )  # fmt: skip


@pytest.fixture(scope="module")
def reversing():
    return scene.of_source(
        "reorder-ed", lens.load("reorder-ed"), "reverse h o u s e", other="reverse m o u s e"
    )


def encoder(name: str = "encoder", **texts: str):
    return scene.of_text(name, specimens.model(SPECIMENS[name]), texts.pop("text", TEXT), **texts)


# ---- names


def test_heads_are_named_by_their_group(reversing, induction):
    assert [g.letter for g in groups_of(reversing.model.cfg)] == ["e", "d", "x"]
    assert [g.letter for g in groups_of(induction.cfg)] == ["a"]
    group, layer, head = find("x1.h2", reversing.groups) or (None, 0, 0)
    assert group is not None and group.site(layer, "hook_z") in reversing.model.sites
    assert group.name(layer, head) == "x1.h2" and group.crosses and not group.causal
    for name in ("x2.h0", "a0.h0", "d0.h4", "x1", "x1.h2 ", "y0.h0"):
        assert find(name, reversing.groups) is None
    assert node_name("e0.h1") == "e0.h1" and node_name("m4") == "m4"
    with pytest.raises(ValueError, match="names look like"):
        node_name("q0.h1")
    assert "has one stack" in head_groups.refusal("x0.h0", induction.cfg)
    assert "e0.h0 to e1.h3" in head_groups.refusal("a0.h0", reversing.model.cfg)
    assert head_groups.refusal("d1.h3", reversing.model.cfg) == ""


@pytest.mark.parametrize("group", [0, 1, 2])
def test_patterns_are_those_of_the_sites(reversing, group):
    found = group_survey.survey(reversing)
    one = reversing.groups[group]
    inputs = reversing.model.to_inputs("reverse h o u s e", targets=["e s u o h <eos>"])
    cache = reversing.model.run_with_cache(inputs)[1]
    for layer in range(one.layers):
        expected = cache[f"{one.block}.{layer}.{one.part}.hook_pattern"][0].numpy()
        assert np.allclose(found[one.letter].patterns[layer], expected, atol=1e-6)
        queries, keys = reversing.labels(one)
        assert expected.shape[1:] == (len(queries), len(keys))


# ---- a source and its target


def test_the_target_is_what_the_model_generates(reversing):
    model = reversing.model
    assert text_reading.generation(reversing) == "e s u o h <eos>"
    assert model.generate("reverse h o u s e", 11) == "e s u o h"
    assert reversing.rows["target"][:2] == ["<bos>→e", "e→s"]
    told = scene.of_source("reorder-ed", model, "reverse h o u s e", "e s u x h")
    assert model.to_string(list(told.said)).split() == ["e", "s", "u", "x", "h", "<eos>"]
    assert outcomes.outcome(told).total < outcomes.outcome(reversing).total - 5


def test_the_log_probability_of_a_target_is_that_of_single_steps(reversing):
    model = reversing.model
    source = model.to_inputs("reverse h o u s e").source
    read = [model.cfg.start_token]
    for token, part in zip(reversing.said, outcomes.outcome(reversing).parts, strict=True):
        logits = model(ModelInputs(ids=torch.tensor([read]), source=source))[0, -1]
        assert part == pytest.approx(float(logits.log_softmax(-1)[token]), abs=1e-4)
        read.append(token)
    found = text_reading.said(reversing)
    assert found.top[:, 0].tolist() == list(reversing.said)
    assert np.allclose(found.expected, np.exp(outcomes.outcome(reversing).parts), atol=1e-5)


def test_cross_attention_goes_to_what_is_said_next(reversing):
    (group,) = [g for g in reversing.groups if g.crosses]
    found = group_survey.survey(reversing)[group.letter]
    index = [s.title for s in scores_of(reversing, group)].index("said next")
    # the five letters stand once each: reversed, position i looks at 5 − i
    naive = found.patterns[:, :, range(5), range(5, 0, -1)].mean(-1)
    assert np.allclose(found.scores[..., index], naive, atol=1e-6)
    assert (found.scores[1, :, index] > 0.8).all() and (found.scores[0, :, index] < 0.5).all()


def test_texts_that_cannot_be_read_are_refused_in_one_line(reversing):
    model = reversing.model
    for source, target, message in (
        ("  ", "", "source is empty"),
        ("reverse q1", "", "'q1' is not a word"),
        ("reverse a b", " ".join("a" * 20), "21 tokens"),
    ):
        with pytest.raises(ValueError, match=message):
            scene.of_source("reorder-ed", model, source, target)
    assert (
        "has 3 tokens and the source 6" in scene.of_source("r", model, reversing.text, other="sort a b").why
    )


# ---- heads taken away


def patched_by_hand(found, group, layer, head, value) -> float:
    """The outcome's total with a head's z set by a hook of the model's own."""

    def set_to(z, hook):
        z = z.clone()
        z[:, :, head] = value
        return z

    with found.model.hooks([(group.site(layer, "hook_z"), set_to)]):
        return outcomes.outcome(found).total


@pytest.mark.parametrize("name", ["e0.h1", "d1.h0", "x0.h1"])
@pytest.mark.parametrize("kind", ["zero", "mean", "counterfactual"])
def test_a_head_of_any_group_is_taken_away(reversing, name, kind):
    group, layer, head = find(name, reversing.groups) or pytest.fail(name)
    site = group.site(layer, "hook_z")
    z = reversing.model.run_with_cache(reversing.inputs)[1][site][:, :, head]
    other = reversing.model.run_with_cache(reversing.other)[1][site][:, :, head]
    value = {"zero": torch.zeros(()), "mean": z.mean(1, keepdim=True), "counterfactual": other}[kind]
    before, after = outcomes.ablate(reversing, group, layer, head, kind)
    assert after.total == pytest.approx(patched_by_hand(reversing, group, layer, head, value), abs=1e-5)
    changes = outcomes.effects(reversing, kind)[group.letter]
    assert changes[layer, head] == pytest.approx(after.total - before.total, abs=1e-5)


def test_what_each_value_would_write(reversing, digits):
    for found in (reversing, digits):
        for group in found.groups:
            sizes = group_survey.value_sizes(found, group, 1)
            cache = found.model.run_with_cache(
                found.inputs, [group.site(1, "hook_v"), group.site(1, "hook_z")]
            )[1]
            stack = found.model.encoder.stack if group.letter == "e" else found.model.stack
            o = getattr(stack.blocks[1], group.part).W_O
            v = cache[group.site(1, "hook_v")][0]
            for head, key in ((0, 0), (3, 2)):
                assert sizes[head, key] == pytest.approx(float((v[key, head] @ o[head]).norm()), rel=1e-5)


# ---- images


def test_shares_of_parts_add_up_to_the_logit_difference(digits):
    shares = image_reading.class_attribution(digits)
    logits = digits.model(digits.inputs)[0]
    assert sum(shares.values()) == pytest.approx(float(logits[3] - logits[2]), abs=1e-4)
    # the last layer's MLP writes straight to the class token: without it, and the divisor held fixed, its share goes
    model = digits.model
    cache = model.run_with_cache(digits.inputs)[1]
    stream, scale = cache["blocks.1.hook_resid_post"][0, 0], cache["ln_final.hook_scale"][0, 0]
    less = stream - cache["blocks.1.hook_mlp_out"][0, 0]
    norm, rows = model.ln_final, model.classifier.linear.weight

    def read(x):
        return (rows[3] - rows[2]) @ ((x - x.mean()) / scale * norm.weight)

    assert shares["m1"] == pytest.approx(float(read(stream) - read(less)), abs=1e-4)


def test_every_layer_is_read_by_the_classifier(digits):
    found = image_reading.class_lens(digits)
    assert found.shape == (3, 10)
    assert np.allclose(found[-1], digits.model(digits.inputs)[0].softmax(-1).numpy(), atol=1e-6)
    early = digits.model(digits.inputs, stop_at_layer=1)
    model = digits.model
    expected = model.classifier.linear(model.ln_final(early)[0, 0]).softmax(-1)
    assert np.allclose(found[1], expected.detach().numpy(), atol=1e-6)


@pytest.mark.parametrize("by", [image_reading.BLANK, outcomes.COUNTERFACTUAL])
def test_patches_are_taken_away_one_by_one(digits, by):
    found = image_reading.occlusion(digits, by)
    whole = outcomes.outcome(digits).total
    for patch in (0, 6, 13):
        image = digits.inputs.image.clone()
        rows, columns = (slice(2 * i, 2 * i + 2) for i in divmod(patch, 4))
        other = -1.0 if by == image_reading.BLANK else digits.other.image[:, :, rows, columns]
        image[:, :, rows, columns] = other
        logits = digits.model(ModelInputs(image=image))[0]
        assert found[patch] == pytest.approx(float(logits[3] - logits[2]) - whole, abs=1e-4)
    assert found[0] == pytest.approx(0, abs=0.5) or by != image_reading.BLANK


def test_attention_to_neighbours_is_counted_by_hand(digits):
    (group,) = digits.groups
    scores = scores_of(digits, group)
    found = group_survey.survey(digits)["a"]
    near = np.zeros((17, 17))
    for a in range(16):
        for b in range(16):
            (r, c), (s, t) = divmod(a, 4), divmod(b, 4)
            near[1 + a, 1 + b] = a != b and abs(r - s) <= 1 and abs(c - t) <= 1
    naive = (found.patterns[..., 1:, :] * near[1:]).sum(-1).mean(-1)
    assert np.allclose(found.scores[..., [s.title for s in scores].index("around")], naive, atol=1e-5)


def test_models_that_are_no_sum_are_refused(digits):
    plain = specimens.model(SPECIMENS["vision"])
    pixels = torch.zeros(plain.cfg.embed.patches.n_channels, *plain.cfg.embed.patches.image_size).numpy()
    found = scene.of_image("vit", plain, pixels)
    with pytest.raises(ValueError, match="has no classifier"):
        image_reading.class_lens(found)
    assert outcomes.outcome(found).total == pytest.approx(1, abs=1e-5), "judged by its vector"


# ---- images that a person gives


def png(pixels: np.ndarray) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def test_uploaded_pictures_are_read_as_the_model_reads_them(digits):
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    key = image_sets.take_in(digits.model, "mine.png", png(grey))
    assert image_sets.UPLOADED.fullmatch(key)
    kept = image_sets.uploaded(key)
    assert kept is not None and np.allclose(kept, (grey / 127.5 - 1)[None], atol=1e-6)
    same = image_sets.take_in(digits.model, "mine.npy", npy(kept[0]))
    assert same == key, "the name tells the contents"
    large = image_sets.uploaded(
        image_sets.take_in(digits.model, "large.png", png(grey.repeat(3, 0).repeat(3, 1)))
    )
    assert large is not None and large.shape == (1, 8, 8), "a processor fits a picture to the model"


def test_without_a_processor_a_picture_must_have_the_size(digits):
    model = digits.model
    plain = Transformer.from_state(model.cfg, model.state_dict())
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    kept = image_sets.uploaded(image_sets.take_in(plain, "mine.png", png(grey)))
    assert kept is not None and np.allclose(kept, (grey / 127.5 - 1)[None], atol=1e-6)
    with pytest.raises(ValueError, match="1 × 9 × 9; digits-vit reads 1 × 8 × 8"):
        image_sets.take_in(plain, "a.png", png(np.zeros((9, 9), np.uint8)))


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.png", b"no picture", "no PNG picture"),
        ("a.npy", npy(np.zeros((9, 9), np.uint8)), "1 × 9 × 9; digits-vit reads 1 × 8 × 8"),
        ("a.npy", b"\x93NUMPY but broken", "no array"),
        ("a.npy", npy(np.full((8, 8), np.nan)), "no numbers"),
        ("a.npy", npy(np.full((8, 8), 300)), "0 to 255"),
        ("a.npy", npy(np.array([["x"]])), "no array of numbers"),
        ("a.png", b"x" * (5 * 2**20), "at most 4"),
    ],
)
def test_other_files_are_refused_in_one_line(digits, name, data, message):
    with pytest.raises(ValueError, match=message) as error:
        image_sets.take_in(digits.model, name, data)
    assert "\n" not in str(error.value)


def test_pickles_in_arrays_are_not_opened(digits):
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="no array"):
        image_sets.take_in(digits.model, "a.npy", buffer.getvalue())


# ---- texts


def test_vectors_are_compared_as_sentence_embeddings_are():
    from lens.sentences import sentence_embeddings

    found = encoder(other=OTHER)
    a, b = sentence_embeddings(found.model, [TEXT, OTHER])
    assert text_reading.similarity(found) == pytest.approx(float(a @ b), abs=1e-5)
    assert outcomes.outcome(found).parts[1] == pytest.approx(float(a @ b), abs=1e-5)
    longer = encoder(other="w5 w6")
    assert longer.other is None and "2 tokens and the text 5" in longer.why
    a, b = sentence_embeddings(found.model, [TEXT, "w5 w6"])
    assert text_reading.similarity(longer) == pytest.approx(float(a @ b), abs=1e-5)


def test_a_pair_of_texts_is_read_with_its_types():
    found = encoder(second="w9 w10")
    assert found.inputs.types is not None and found.inputs.types.sum() > 0
    alone = encoder()
    assert alone.key() != found.key()
    assert found.rows["target"][0] == "w5"


def test_what_stands_behind_a_mask():
    found = encoder("masked")
    top, probs, rank = text_reading.masked(found, 2)
    assert found.inputs.ids is not None
    ids = found.inputs.ids.clone()
    ids[0, 2] = found.model.tokenizer.mask_id
    expected = found.model(ids)[0, 2].softmax(-1)
    assert top.tolist() == expected.topk(10).indices.tolist()
    assert np.allclose(probs, expected.topk(10).values.numpy(), atol=1e-6)
    assert rank == int((expected > expected[found.ids["target"][2]]).sum())


def test_clip_makes_its_own_vectors_of_texts():
    found = encoder("clip", other=OTHER)
    assert found.other is not None
    pooled = [
        found.model.run_with_cache(inputs, ["pooler_out"])[1]["pooler.hook_pooler_out"][0]
        for inputs in (found.inputs, found.other)
    ]
    expected = float(torch.nn.functional.cosine_similarity(*pooled, dim=0))
    assert text_reading.similarity(found) == pytest.approx(expected, abs=1e-6)
