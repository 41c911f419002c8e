"""Runs of a part of a model equal the part of a whole run: layers, positions, rows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lens import text
from lens.block import Block
from lens.taps import Taps
from tests.core.specimens import D_VOCAB, KINDS, N_CTX, N_LAYERS, ids, model

each_kind = pytest.mark.parametrize("kind", KINDS)


def close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-9, atol=1e-11)


# ------------------------------------------------------------------ layers


@each_kind
def test_start_and_stop_at_every_layer(kind: str) -> None:
    m, prompt = model(kind), ids()
    logits, cache = m.run_with_cache(prompt, "resid_pre")
    for layer in range(N_LAYERS):
        stream = m(prompt, stop_at_layer=layer)
        assert close(stream, cache["resid_pre", layer])
        assert close(m(stream, start_at_layer=layer), logits)
        assert close(m(prompt, stop_at_layer=layer - N_LAYERS), stream), "counted from the end"
        for stop in range(layer, N_LAYERS):
            between = m(stream, start_at_layer=layer, stop_at_layer=stop)
            assert close(between, cache["resid_pre", stop])
    last = m(prompt, stop_at_layer=N_LAYERS)
    assert close(m.to_logits(last), logits)
    assert close(m(last, start_at_layer=N_LAYERS), logits)


def test_a_run_with_cache_can_start_and_stop_too() -> None:
    m, prompt = model("gpt2"), ids()
    whole = m.run_with_cache(prompt)[1]
    stream, part = m.run_with_cache(
        whole["resid_pre", 1], names_filter=None, start_at_layer=1, stop_at_layer=3
    )
    assert close(stream, whole["resid_pre", 3])
    assert {m.sites[name].layer for name in part} == {1, 2}
    assert all(close(x, whole[name]) for name, x in part.items())


@each_kind
def test_activations_stop_at_the_deepest_site(kind: str, monkeypatch) -> None:
    """Blocks after it are not run, and within its block nothing after it."""
    m, prompt = model(kind), ids()
    whole, ran = m.run_with_cache(prompt)[1], []
    first, second = Block.first, Block.second
    monkeypatch.setattr(Block, "first", lambda self, *a, **k: ran.append(self.layer) or first(self, *a, **k))
    monkeypatch.setattr(Block, "second", lambda self, *a, **k: ran.append("mlp") or second(self, *a, **k))
    for names, layers in (
        (["resid_pre0"], [0]),
        (["pattern1"], [0, "mlp", 1]),
        (["z0", ("k", 2)], [0, "mlp", 1, "mlp", 2]),
        (["embed"], []),
    ):
        ran.clear()
        cache = m.activations(prompt, names)
        assert ran == layers
        assert len(cache) == len(names) and all(close(x, whole[n]) for n, x in cache.items())
    ran.clear()
    m.activations(prompt, "logits")
    assert len(ran) == 2 * N_LAYERS


def test_activations_of_an_expert_nobody_was_sent_to() -> None:
    """A site that may not fire does not hold the run up, and is not in the cache."""
    m = model("experts")
    names = [n for n, site in m.sites.items() if site.conditional and n.endswith("hook_post")]
    cache = m.activations(ids(1, 1), names)
    assert len(cache) == 2 * N_LAYERS, "one token goes to two of three experts of each layer"


# ------------------------------------------------------------------ positions


@each_kind
def test_a_run_may_stand_on_any_prefix(kind: str) -> None:
    m, prompt = model(kind), ids(3, 7)
    logits, cache = m.run_with_cache(prompt, ["pattern", "resid_post", "z"])
    for split in range(1, 7):
        past = m.new_past()
        before = m(prompt[:, :split], past=past)
        assert close(before, logits[:, :split]) and len(past) == split
        past.freeze()
        after, seen = m.run_with_cache(prompt[:, split:], ["pattern", "resid_post", "z"], past=past)
        assert close(after, logits[:, split:])
        assert close(m(prompt[:, split:], past=past), logits[:, split:]), "explicit and fused attention"
        for name, x in seen.items():
            axis = m.sites[name].shape.split().index("pos")
            assert close(x, cache[name].narrow(axis, split, 7 - split)), name
        assert len(past) == split, "a frozen store stays as it is"


@each_kind
def test_token_by_token(kind: str) -> None:
    m, prompt = model(kind), ids(2, 6)
    past = m.new_past()
    steps = [m(prompt[:, i, None], past=past) for i in range(6)]
    assert close(torch.cat(steps, 1), m(prompt)) and len(past) == 6


@each_kind
def test_a_frozen_past_serves_several_copies_of_its_rows(kind: str) -> None:
    m, prompt = model(kind), ids(2, 8)
    past = m.new_past()
    m(prompt[:, :5], past=past)
    past.freeze()
    others = torch.cat([ids(2, 3, seed=s) for s in (1, 2, 3)])
    together = m(others, past=past)
    for i, row in enumerate(others):
        alone = m(torch.cat([prompt[i % 2, :5], row])[None])
        assert close(together[i], alone[0, 5:])


def test_a_past_of_other_rows_is_refused() -> None:
    m = model()
    past = m.new_past()
    m(ids(2, 4), past=past)
    for n in (1, 3):
        with pytest.raises(ValueError, match=f"the past has 2 rows, and a run on it a multiple.* not {n}"):
            m(ids(n, 2), past=past)


def test_runs_of_some_layers_take_a_frozen_past() -> None:
    m, prompt = model(), ids()
    past = m.new_past()
    for options in ({"stop_at_layer": 2}, {"start_at_layer": 1}):
        given = prompt if "stop_at_layer" in options else m(prompt, stop_at_layer=1)
        with pytest.raises(ValueError, match=r"would fill only some layers of `past`; freeze\(\) it first"):
            m(given, past=past, **options)
    m(prompt[:, :4], past=past)
    stopped = m(prompt[:, 4:], past=past.freeze(), stop_at_layer=2)
    assert close(stopped, m(prompt, stop_at_layer=2)[:, 4:])
    resumed = m(stopped, past=past, start_at_layer=2)
    assert close(resumed, m(prompt)[:, 4:])


def test_a_run_that_fails_leaves_the_past_usable() -> None:
    m, prompt = model(), ids()
    past = m.new_past()
    m(prompt[:, :4], past=past)

    def fail(x: Tensor) -> None:
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        m(prompt[:, 4:6], past=past, taps=Taps(edits={"blocks.2.hook_resid_pre": fail}))
    assert close(m(prompt[:, 4:], past=past), m(prompt)[:, 4:])


@each_kind
@pytest.mark.parametrize("at", [0, 5, -1, -3, slice(2, 5), slice(-2, None), slice(0, 0)])
def test_only_some_positions_are_unembedded(kind: str, at: int | slice) -> None:
    m, prompt = model(kind), ids()
    whole = m(prompt)
    index = at if isinstance(at, slice) else [at]
    assert close(m(prompt, logits_at=at), whole[:, index])
    assert close(m.run_with_cache(prompt, "logits", logits_at=at)[1]["logits"], whole[:, index])


def test_one_position_per_row_is_unembedded() -> None:
    m, prompt = model(), ids()
    whole = m(prompt)
    for at in ([4, 0, 8], [-1, -9, 2]):
        found = m(prompt, logits_at=torch.tensor(at))
        assert close(found, whole[torch.arange(3), at][:, None])


@pytest.mark.parametrize(
    ("at", "message"),
    [
        (9, "logits_at is 9 and the run has 9 positions"),
        (-10, "logits_at is -10 and the run has 9 positions"),
        (torch.tensor([0, 9, 1]), "logits_at is 9 and the run"),
        (torch.tensor([0]), r"logits_at holds one position per row, \[3\]; not \[1\]"),
    ],
)
def test_positions_that_do_not_exist_are_refused(at, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model()(ids(), logits_at=at)


# ------------------------------------------------------------------ padding

LENGTHS = (9, 5, 1)


def padded(side: str) -> tuple[Tensor, Tensor]:
    """Prompts of several lengths in one batch, and where they are real."""
    place = torch.arange(9).expand(3, -1)
    missing = 9 - torch.tensor(LENGTHS)[:, None]
    return ids(), place < 9 - missing if side == "right" else place >= missing


@each_kind
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("tap", [[], ["pattern"]], ids=["fused", "explicit"])
def test_a_padded_row_equals_its_prompt_alone(kind: str, side: str, tap: list[str]) -> None:
    m, (prompt, real) = model(kind), padded(side)
    for mask in (real, real.long()):
        together = m.run_with_cache(prompt, [*tap, "resid_pre"], attention_mask=mask)
        for row, keep in enumerate(real):
            alone = m.run_with_cache(prompt[row, keep][None], [*tap, "resid_pre"])
            assert close(together[0][row, keep], alone[0][0])
            for name in together[1]:
                x, y = together[1][name][row], alone[1][name][0]
                assert close(x[:, keep][..., keep] if "pattern" in name else x[keep], y), name
    assert together[0].isfinite().all(), "padding makes no NaN, which would spread through gradients"


@each_kind
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_padded_prefix_and_what_follows_equal_the_prompt_alone(kind: str, side: str) -> None:
    """Continuing a padded batch: holes between prompt and continuation count neither as tokens nor as distance."""
    m, (prompt, real) = model(kind), padded(side)
    new = ids(3, 4, seed=5)
    for full_mask in (False, True):
        past = m.new_past()
        m(prompt, attention_mask=real, past=past)
        mask = torch.cat([real, torch.ones(3, 4, dtype=torch.bool)], 1) if full_mask else None
        together = m(new, past=past, attention_mask=mask)
        for row, keep in enumerate(real):
            alone = m(torch.cat([prompt[row, keep], new[row]])[None])
            assert close(together[row], alone[0, -4:])


def test_gradients_through_padding_are_finite() -> None:
    m, (prompt, real) = model("gpt2"), padded("left")
    for names in (["resid_pre1"], ["resid_pre1", "attn_scores2", "pattern2"]):
        logits, cache = m.run_with_cache(prompt, names, attention_mask=real, grad=True)
        first = next(iter(cache.values()))
        (gradient,) = torch.autograd.grad(logits[:, -1].sum(), [first])
        assert gradient.isfinite().all()
        assert (gradient[~real] == 0).all(), "what nobody reads has no gradient"


# ------------------------------------------------------------------ what a run refuses


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inputs": torch.tensor([[3, D_VOCAB]])}, f"token id {D_VOCAB} is outside the vocabulary"),
        ({"inputs": torch.tensor([[-1]])}, "token id -1 is outside the vocabulary"),
        ({"inputs": torch.zeros(2, 0, dtype=torch.long)}, r"token ids must be \[batch, pos\]"),
        ({"inputs": torch.zeros(1, 2, 3, dtype=torch.long)}, r"token ids must be \[batch, pos\]"),
        ({"inputs": ids(1, N_CTX + 1)}, f"the prompt has {N_CTX + 1} tokens and llama takes at most {N_CTX}"),
        ({"attention_mask": torch.ones(3, 8).bool()}, r"attention_mask is \(3, 8\) and the run has \(3, 9\)"),
        ({"attention_mask": torch.ones(1, 9).bool()}, r"attention_mask is \(1, 9\) and the run has \(3, 9\)"),
        ({"start_at_layer": 1}, "a run that starts at layer 1 takes a residual stream"),
        ({"start_at_layer": 9}, "start_at_layer is 9 and llama has layers 0 to 3"),
        ({"stop_at_layer": 9}, "stop_at_layer is 9; from layer 0 on it can be 0 to 4"),
        ({"stop_at_layer": -5}, "stop_at_layer is -5"),
        ({"inputs": torch.zeros(1, 2, 15)}, r"a residual stream is \[batch, pos, 16\], not \(1, 2, 15\)"),
        ({"inputs": "words"}, "llama has no tokenizer; give token ids instead of text"),
    ],
)
def test_what_a_run_refuses(options: dict, message: str) -> None:
    options = {"inputs": ids(), **options}
    with pytest.raises(ValueError, match=message):
        model()(options.pop("inputs"), **options)


def test_the_context_counts_the_past() -> None:
    m = model()
    past = m.new_past()
    m(ids(1, N_CTX - 1), past=past)
    m(ids(1, 1), past=past)
    with pytest.raises(ValueError, match=f"the prompt has {N_CTX + 1} tokens"):
        m(ids(1, 1), past=past)


# ------------------------------------------------------------------ text in


def test_texts_are_tokenised_padded_and_masked() -> None:
    m = model(tokenizer=True)
    texts = ["w3 w4 w5", "w6"]
    assert m.to_tokens(texts).tolist() == [[0, 3, 4, 5], [0, 6, 2, 2]]
    together = m(texts)
    assert close(together[0], m(texts[0])[0]) and close(together[1, :2], m(texts[1])[0])
    assert close(m(texts[0]), m(torch.tensor([0, 3, 4, 5])))
    assert m.to_tokens("w3", prepend_bos=False).tolist() == [[3]]
    assert m.to_str_tokens("w3 w4") == ["<bos>", "w3", "w4"]
    assert m.to_string(torch.tensor([[3, 4]])) == "w3 w4"
    assert m.to_single_token("w9") == 9
    for bad, message in (("", "prompt 0 is empty"), (["w3", 5], "expected a text"), ([], "expected a text")):
        with pytest.raises(ValueError, match=message):
            text.to_tokens(m, bad, prepend_bos=False)
