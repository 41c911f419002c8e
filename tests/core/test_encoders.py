"""Models that read texts in both directions: what runs of them are, and what they refuse."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import lens
from circuits.pairs import Pairs
from lens import family
from lens.config import Disentangled
from lens.description import in_words, n_parameters
from lens.inputs import ModelInputs
from lens.model import Transformer
from lens.relative import DistanceTable
from tests import zoo
from tests.parity import ours, prompts


def bert(name: str = "pretraining") -> Transformer:
    return ours("bert", name, torch.float64)


def close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-9, atol=1e-11)


def test_every_position_looks_at_every_other() -> None:
    pattern = bert().run_with_cache(prompts(), "pattern")[1]["pattern", 0]
    assert (pattern > 0).all()


def test_there_is_nothing_to_stand_on() -> None:
    model = bert()
    with pytest.raises(ValueError, match="bert reads texts in both directions: there is nothing"):
        model.new_past()
    past = ours("gpt2", "tied").new_past()
    with pytest.raises(ValueError, match="both directions: there are no keys and values"):
        model(prompts(), past=past)
    with pytest.raises(ValueError, match="both directions: it does not continue them"):
        model.generate(prompts(), 2)


def test_circuits_refuse_them_in_one_line() -> None:
    pairs = Pairs.from_tokens(ours("gpt2", "tied"), prompts(2), prompts(2).flip(0), [5, 6], [7, 8])
    with pytest.raises(
        ValueError, match="bert looks in both directions; circuits are found in causal models"
    ):
        pairs.check(bert().cfg)


def test_types_of_tokens() -> None:
    model, ids = bert(), prompts()
    plain = model(ids)
    assert close(model(ModelInputs(ids=ids, types=torch.zeros_like(ids))), plain)
    assert not close(model(ModelInputs(ids=ids, types=torch.ones_like(ids))), plain)
    for given, message in (
        (
            ModelInputs(ids=ids, types=torch.ones_like(ids) * 2),
            "token type 2 is outside the token types of bert",
        ),
        (
            ModelInputs(ids=ids, types=torch.ones(3, 2).long()),
            r"token types are \(3, 2\) and the ids \(3, 13\)",
        ),
        (ModelInputs(), "inputs need token ids or a residual stream"),
    ):
        with pytest.raises(ValueError, match=message):
            model(given)
    with pytest.raises(ValueError, match="distilbert has no token types"):
        ours("distilbert", "masked")(ModelInputs(ids=ids, types=torch.zeros_like(ids)))


def test_what_a_run_gives() -> None:
    """Logits over tokens, else over classes, else the last stream; the other heads where they are read."""
    ids = prompts()
    both, cache = bert().run_with_cache(ids, ["classifier.hook_logits", "pooler_out"])
    assert both.shape == (3, 13, zoo.D_VOCAB) and cache["classifier.hook_logits"].shape == (3, 2)
    assert bert("texts")(ids).shape == (3, 4) and bert("tokens")(ids).shape == (3, 13, 4)
    stream, cache = bert("base").run_with_cache(ids, ["normalized_resid_post", "pooler.hook_pooler_out"])
    assert close(stream, cache["normalized_resid_post", 2])
    assert cache["pooler_out"].shape == (3, 32)
    assert close(bert()(ids, logits_at=-2), bert()(ids)[:, [-2]])
    assert bert("base")(ids, logits_at=slice(2, 5)).shape == (3, 3, 32)


def test_a_head_that_nobody_looks_at_is_not_run(monkeypatch) -> None:
    model, ran = bert(), []
    monkeypatch.setattr(model.pooler, "forward", lambda *args: ran.append(args))
    model(prompts())
    assert not ran


def test_a_text_is_read_at_its_first_token() -> None:
    model, ids = bert("texts"), prompts(2)
    real = torch.ones_like(ids, dtype=torch.bool)
    real[1, :5] = False
    assert close(model(ids, attention_mask=real)[1], model(ids[1, 5:])[0])


def test_older_names_of_norms_are_read() -> None:
    """The first BERT checkpoints say gamma and beta."""
    hf = zoo.hugging_face("bert", "pretraining")
    saved = hf.state_dict()
    older = {
        n.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): x
        for n, x in saved.items()
    } | {"bert.embeddings.position_ids": torch.arange(zoo.N_CTX)[None]}
    assert older.keys() != saved.keys()
    cfg, state = family.read(hf.config.to_dict(), older)
    expected = family.read(hf.config.to_dict(), saved)[1]
    assert state.keys() == expected.keys() and all(torch.equal(x, expected[n]) for n, x in state.items())
    written = family.write(cfg, state, older)
    assert all(torch.equal(x, older[n]) for n, x in written.items()) and len(written) == len(older) - 1


def test_two_names_of_one_tensor_must_agree() -> None:
    hf = zoo.hugging_face("bert", "masked")
    state = {**hf.state_dict(), "cls.predictions.decoder.bias": torch.zeros(zoo.D_VOCAB)}
    with pytest.raises(
        ValueError, match=r"'cls\.predictions\.bias' and 'cls\.predictions\.decoder\.bias' both give"
    ):
        family.read(hf.config.to_dict(), state)


def test_an_unused_pooler_beside_a_classifier_is_passed_over() -> None:
    """As in roberta-large-mnli."""
    hf = zoo.hugging_face("roberta", "texts")
    unused = {f"roberta.pooler.dense.{leaf}": torch.zeros(1) for leaf in ("weight", "bias")}
    cfg, state = family.read(hf.config.to_dict(), {**hf.state_dict(), **unused})
    assert torch.equal(state["pooler.dense.weight"], hf.state_dict()["classifier.dense.weight"])
    assert cfg.classifier is not None and cfg.classifier.n_classes == 4


def test_layers_that_share_parameters_are_saved_once(tmp_path: Path) -> None:
    model = ours("albert", "pretraining")
    path = lens.save(model, tmp_path / "saved")
    names = load_file(path / "model.safetensors").keys()
    assert {n.split(".")[2] for n in names if n.startswith("stack.blocks")} == {"0", "2"}
    again = lens.load(path)
    assert torch.equal(again(prompts()), model(prompts()))
    assert n_parameters(model.cfg) == sum(p.numel() for p in model.parameters())


def test_heads_are_seen_in_the_tensors_of_a_folder(tmp_path: Path) -> None:
    """A MiniLM-like folder: a base model with a pooler and nothing else."""
    hf = zoo.hugging_face("bert", "base")
    hf.config.save_pretrained(tmp_path)
    save_file({n: x.clone() for n, x in hf.state_dict().items()}, tmp_path / "model.safetensors")
    model = lens.load(tmp_path)
    assert model.cfg.pooler is not None and model.cfg.unembed is None and model.cfg.classifier is None
    assert "hook_logits" not in model.sites
    words = in_words(model.cfg)
    assert "no unembedding: a run gives the last residual stream" in words
    assert any("in both directions" in line for line in words)


def test_global_tokens() -> None:
    """They see everything and are seen from everywhere; the rest sees a window."""
    model, ids = ours("longformer", "masked", torch.float64), prompts()
    chosen = torch.zeros_like(ids, dtype=torch.bool)
    chosen[1, 4] = True
    pattern = model.run_with_cache(ModelInputs(ids=ids, global_tokens=chosen), "pattern")[1]["pattern", 0]
    near = (torch.arange(13)[:, None] - torch.arange(13)).abs() <= 2
    seen = near | chosen[:, None, :] | chosen[:, :, None]
    assert torch.equal(pattern > 0, seen[:, None].expand_as(pattern))
    plain = model(ids)
    assert close(model(ModelInputs(ids=ids, global_tokens=torch.zeros_like(chosen))), plain)
    assert close(model(ModelInputs(ids=ids, global_tokens=chosen))[0], plain[0])
    with pytest.raises(ValueError, match="bert has no global tokens"):
        bert()(ModelInputs(ids=ids, global_tokens=chosen))
    with pytest.raises(ValueError, match=r"global_tokens is \(3, 2\) and the run has \(3, 13\)"):
        model(ModelInputs(ids=ids, global_tokens=chosen[:, :2]))


def test_a_classifier_of_texts_makes_the_first_token_global() -> None:
    model, ids = ours("longformer", "texts", torch.float64), prompts()
    first = (torch.arange(13) == 0).expand_as(ids)
    assert close(model(ids), model(ModelInputs(ids=ids, global_tokens=first)))
    assert not close(model(ids), model(ModelInputs(ids=ids, global_tokens=~first)))


def test_distances_share_buckets_as_in_the_paper() -> None:
    """DeBERTa's rows of the table, against the formula written with Python's numbers (arXiv 2006.03654, eq. 3)."""
    cfg = Disentangled(span=8, max_distance=64, log_from=4)
    table = DistanceTable(cfg, bert().cfg.stack)
    distances = torch.arange(-80, 81)

    def row(distance: int) -> int:
        size = abs(distance)
        if size > 4:
            size = math.ceil(math.log(size / 4) / math.log(63 / 4) * 3) + 4
        return min(max(size * (1 if distance > 0 else -1) + 8, 0), 15)

    assert table.rows(distances[None, None])[0, 0].tolist() == [row(d) for d in distances.tolist()]
