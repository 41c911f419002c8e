"""Two stacks: what one run of them is, what is kept between runs, and what they refuse."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

import lens
from circuits.pairs import Pairs
from lens.description import in_words, n_parameters
from lens.inputs import ModelInputs
from lens.model import Transformer
from lens.sentences import sentence_embeddings
from lens.tokens import Tokenizer
from tests import zoo
from tests.parity import ours, prompts

FAMILIES = ("bart", "marian", "t5")
each_family = pytest.mark.parametrize("family", FAMILIES)


def model_of(family: str) -> Transformer:
    return ours(family, "plain", torch.float64)


def source(n: int = 3) -> Tensor:
    return prompts(n)[:, :7]


def both(n: int = 3) -> ModelInputs:
    return ModelInputs(ids=prompts(n)[:, 4:], source=ModelInputs(ids=source(n)))


def close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-9, atol=1e-11)


@each_family
def test_the_encoder_runs_once_for_many_targets(family: str) -> None:
    model = model_of(family)
    logits, cache = model.run_with_cache(both(), [f"encoder.{0}.hook_resid_pre", "cross_attn.hook_pattern"])
    made = model.encode(source())
    for given in (ModelInputs(ids=source()), both()):
        assert torch.equal(model.encode(given).stream, made.stream)
    assert close(model(ModelInputs(ids=both().ids, source=made)), logits)
    twice = ModelInputs(ids=torch.cat([both().ids, both().ids]), source=made)
    assert close(model(twice), torch.cat([logits, logits])), "a source of b rows serves c·b targets"
    assert cache["cross_attn.hook_pattern", 1].shape[-2:] == (9, 7)
    with pytest.raises(ValueError, match="cannot fire in a run"):
        model.run_with_cache(ModelInputs(ids=both().ids, source=made), ["encoder.0.attn.hook_z"])
    assert not made.kept, "runs keep nothing in what they are given"


@each_family
def test_targets_token_by_token(family: str) -> None:
    """Keys and values of the source are made in the first run, and used by those that continue it."""
    model, given = model_of(family), both()
    whole = model(given)
    past = model.new_past()
    assert given.ids is not None
    steps = [model(ModelInputs(ids=given.ids[:, :2], source=given.source), past=past)]
    steps += [model(ModelInputs(ids=given.ids[:, i, None]), past=past) for i in range(2, 9)]
    assert close(torch.cat(steps, 1), whole)
    assert past.encoded is not None and len(past.encoded.kept) == model.cfg.n_layers
    prefix = past.upto(4)
    assert close(model(ModelInputs(ids=given.ids[:, 4:]), past=prefix), whole[:, 4:])
    chosen = past.upto(4).rows(torch.tensor([2, 0]))
    assert close(model(ModelInputs(ids=given.ids[[2, 0], 4:]), past=chosen), whole[[2, 0], 4:])
    twice = torch.cat([given.ids[:, 4:], given.ids[:, 4:]])
    assert close(model(ModelInputs(ids=twice), past=prefix), torch.cat([whole[:, 4:], whole[:, 4:]]))


@each_family
def test_generation_is_hugging_faces(family: str) -> None:
    hf, model = zoo.hugging_face(family, "plain"), ours(family, "plain")
    hf.generation_config.forced_eos_token_id = None
    expected = hf.generate(source(), max_new_tokens=6, do_sample=False, num_beams=1)
    found = model.generate(source(), 6)
    for row, theirs in zip(found, expected, strict=True):
        ends = (theirs[1:] == hf.config.eos_token_id).nonzero()
        n = int(ends[0]) + 2 if len(ends) else len(theirs)
        assert row[:n].tolist() == theirs[:n].tolist()


def test_teacher_forcing_and_text() -> None:
    words = Tokenizer.from_words([f"w{i}" for i in range(zoo.D_VOCAB)], bos="w1", eos="w2", pad="w0")
    model = Transformer.from_state(model_of("t5").cfg, model_of("t5").state_dict(), tokenizer=words)
    given = model.to_inputs(["w5 w6 w7", "w8"], targets=["w9 w10", "w11 w12"])
    assert given.ids is not None and given.ids.tolist() == [[0, 9], [0, 11]], "moved by one"
    assert isinstance(given.source, ModelInputs)
    assert given.source.ids.tolist() == [[5, 6, 7], [8, 0, 0]]
    logits = model(given)
    alone = model(ModelInputs(ids=torch.tensor([[0, 11]]), source=ModelInputs(ids=torch.tensor([[8]]))))
    assert close(logits[1], alone[0])
    begun = model(["w5 w6 w7", "w8"])
    assert close(begun[:, 0], logits[:, 0]), "without targets, what would be said first"
    said = model.generate("w5 w6 w7", 4)
    ids = model.generate(torch.tensor([5, 6, 7]), 4)
    assert said == words.decode(ids[0, 1:]).split(" w2")[0]
    assert model.generate(["w5 w6 w7"], 4) == [said]
    with pytest.raises(ValueError, match="there are 2 sources and 1 targets"):
        model.to_inputs(["w5", "w6"], targets=["w7"])


def test_edits_of_cross_attention_act() -> None:
    """A head that looks at nothing but the source's last token mixes its value alone."""
    model, given = model_of("marian"), both()
    site = "decoder.1.cross_attn.hook_pattern"

    def to_last(pattern: Tensor) -> Tensor:
        edited = pattern.clone()
        edited[:, 1] = 0
        edited[:, 1, :, -1] = 1
        return edited

    logits, cache = model.run_with_cache(
        given, ["cross_attn.hook_z", "cross_attn.hook_v"], edits={site: to_last}
    )
    z, v = cache["cross_attn.hook_z", 1], cache["cross_attn.hook_v", 1]
    assert close(z[:, :, 1], v[:, -1:, 1].expand_as(z[:, :, 1]))
    assert not close(logits, model(given))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (ModelInputs(ids=prompts()), "bart needs a source"),
        (
            ModelInputs(ids=prompts(), source=ModelInputs(ids=source(2))),
            "the source has 2 rows, and its target",
        ),
        (ModelInputs(ids=prompts(), source=ModelInputs(ids=source() + 60)), "outside the vocabulary"),
        (torch.ones(1, 60, dtype=torch.long), "the source has 60 tokens and bart takes at most 48"),
    ],
)
def test_what_is_refused(given, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model_of("bart")(given)
    with pytest.raises(ValueError, match="gpt2 has no encoder"):
        ours("gpt2", "tied")(both())
    with pytest.raises(ValueError, match="gpt2 has no encoder"):
        ours("gpt2", "tied").encode(source())


def test_circuits_refuse_them_in_one_line() -> None:
    pairs = Pairs.from_tokens(ours("gpt2", "tied"), prompts(2), prompts(2).flip(0), [5, 6], [7, 8])
    with pytest.raises(ValueError, match="t5 has an encoder; circuits are found in models of one stack"):
        pairs.check(model_of("t5").cfg)


def test_no_length_is_too_long_where_only_scores_know_of_positions() -> None:
    assert model_of("t5")(torch.ones(1, 700, dtype=torch.long)).shape == (1, 1, zoo.D_VOCAB)


@each_family
def test_saved_and_loaded(family: str, tmp_path: Path) -> None:
    model = ours(family, "plain")
    again = lens.load(lens.save(model, tmp_path / "saved"))
    assert again.cfg == model.cfg.__class__.from_dict({**model.cfg.to_dict(), "name": "saved"})
    assert torch.equal(again(both()), model(both()))
    assert n_parameters(model.cfg) == sum(p.numel() for p in model.parameters())
    assert any("encoder" in line for line in in_words(model.cfg))


def test_sites_are_named_as_transformerlens_names_them() -> None:
    sites = model_of("t5").sites
    for name in (
        "encoder.2.attn.hook_pattern",
        "decoder.1.cross_attn.hook_pattern",
        "decoder.0.hook_cross_attn_out",
        "decoder.1.hook_resid_mid_cross",
        "encoder_final_ln.hook_scale",
        "decoder_final_ln.hook_normalized",
        "decoder.0.ln3.hook_scale",
    ):
        assert name in sites
    assert sites["encoder.2.attn.hook_pattern"].kind == "encoder.attn.hook_pattern"
    cache = model_of("t5").run_with_cache(both())[1]
    assert cache["pattern", 1] is cache["decoder.1.attn.hook_pattern"]


def test_no_embeddings_of_what_a_decoder_has_not_read() -> None:
    with pytest.raises(
        ValueError, match="bart answers texts: embeddings of sentences are made by models of one"
    ):
        sentence_embeddings(ours("bart", "plain"), ["w5 w6"])
