"""Generation against running everything again for each token; sampling, endings, streaming, edits."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import Tensor

from lens.config import EmbedConfig, ModelConfig, StackConfig, UnembedConfig
from lens.generate import sampler
from lens.model import Transformer
from lens.progress import Cancelled
from lens.tokens import Tokenizer
from tests.core.specimens import D_VOCAB, KINDS, N_CTX, ids, model


def naive(m: Transformer, prompt: Tensor, n: int) -> Tensor:
    """Greedy continuation, the whole text run again for every token."""
    for _ in range(n):
        prompt = torch.cat([prompt, m(prompt)[:, -1].argmax(-1, keepdim=True)], 1)
    return prompt


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_equals_running_everything_again(kind: str) -> None:
    m, prompt = model(kind), ids()
    assert torch.equal(m.generate(prompt, 6), naive(m, prompt, 6))
    assert torch.equal(m.generate(prompt[0], 3), naive(m, prompt[:1], 3)), "one row of ids [p]"


@pytest.mark.parametrize("kind", KINDS)
def test_prompts_of_different_lengths_are_continued_as_if_alone(kind: str) -> None:
    m = model(kind, tokenizer=True)
    texts = ["w3 w4 w5 w6 w7 w8", "w9", "w4 w4 w11"]
    together = m.generate(texts, 6, stop_at_eos=False)
    assert together == [m.generate(text, 6, stop_at_eos=False) for text in texts]
    for text, continued in zip(texts, together, strict=True):
        assert continued == m.to_string(naive(m, m.to_tokens(text), 6)[:, 1:]), "after <bos>"


def test_edits_act_on_every_step() -> None:
    m, prompt, site = model(), ids(), "blocks.2.hook_resid_post"
    push = torch.randn(16, dtype=m.dtype) * 5
    steered = m.generate(prompt, 5, edits={site: lambda x: x + push})
    expected = prompt
    for _ in range(5):
        logits = m.run_with_hooks(expected, [(site, lambda x, hook: x + push)])
        expected = torch.cat([expected, logits[:, -1].argmax(-1, keepdim=True)], 1)
    assert torch.equal(steered, expected)
    assert not torch.equal(steered, m.generate(prompt, 5))


# ------------------------------------------------------------------ sampling


def test_sampling_is_reproducible() -> None:
    m, prompt = model(), ids()
    for options in ({}, {"top_k": 5}, {"top_p": 0.8}, {"top_k": 7, "top_p": 0.9}):
        first = m.generate(prompt, 8, temperature=1.0, seed=3, **options)
        assert torch.equal(first, m.generate(prompt, 8, temperature=1.0, seed=3, **options))
        assert not torch.equal(first, m.generate(prompt, 8, temperature=1.0, seed=4, **options))
    unseeded = [m.generate(prompt, 8, temperature=1.0) for _ in range(2)]
    assert not torch.equal(*unseeded)


def test_sampling_leaves_the_global_random_state_alone() -> None:
    m, prompt = model(), ids()  # making a model draws from it
    before = torch.get_rng_state()
    m.generate(prompt, 3, temperature=1.0)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("options", [{"temperature": 1.0, "top_k": 1}, {"temperature": 1.0, "top_p": 1e-9}])
def test_the_narrowest_sampling_is_greedy(options: dict) -> None:
    m, prompt = model(), ids()
    assert torch.equal(m.generate(prompt, 5, **options), m.generate(prompt, 5))


def drawn(n: int = 20_000, **options) -> Tensor:
    """How often each of five tokens with probabilities .4 .3 .15 .1 .05 is drawn."""
    logits = torch.tensor([0.15, 0.4, 0.05, 0.3, 0.1]).log().expand(n, -1)
    defaults = {"temperature": 1.0, "top_k": None, "top_p": None, "seed": 0, "device": torch.device("cpu")}
    return torch.bincount(sampler(**{**defaults, **options})(logits), minlength=5) / n


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.15, 0.4, 0.05, 0.3, 0.1]),
        ({"top_k": 2}, [0, 4 / 7, 0, 3 / 7, 0]),
        ({"top_k": 99}, [0.15, 0.4, 0.05, 0.3, 0.1]),
        ({"top_p": 0.39}, [0, 1, 0, 0, 0]),
        ({"top_p": 0.5}, [0, 4 / 7, 0, 3 / 7, 0]),
        ({"top_p": 0.75}, [3 / 17, 8 / 17, 0, 6 / 17, 0]),
        ({"top_p": 1.0}, [0.15, 0.4, 0.05, 0.3, 0.1]),
        ({"top_k": 3, "top_p": 0.6}, [0, 4 / 7, 0, 3 / 7, 0]),
        ({"temperature": 0.5}, [0.0225 / 0.285, 0.16 / 0.285, 0.0025 / 0.285, 0.09 / 0.285, 0.01 / 0.285]),
    ],
)
def test_what_is_sampled_from(options: dict, expected: list[float]) -> None:
    found = drawn(**options)
    assert torch.allclose(found, torch.tensor(expected, dtype=torch.float32), atol=0.015)
    assert ((found > 0) == (torch.tensor(expected) > 0)).all()


# ------------------------------------------------------------------ endings and streaming


@cache
def speaking() -> Transformer:
    """A model of bytes, and the words `ab` and `abc`, that can be made to say anything (`says`)."""
    import tokenizers

    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: i for i, piece in enumerate([*alphabet, "ab", "<eos>"])}
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, [("a", "b")]))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    backend.add_special_tokens(["<eos>"])
    cfg = ModelConfig(
        family="llama",
        name="speaking",
        n_ctx=64,
        embed=EmbedConfig(d_vocab=len(vocabulary), d_embed=4),
        stack=StackConfig(n_layers=1, d_model=4, n_heads=1, d_head=4, n_kv_heads=1, d_mlp=None),
        unembed=UnembedConfig(d_vocab=len(vocabulary), d_embed=4),
    )
    made = Transformer(cfg, Tokenizer(backend, eos="<eos>"))
    for parameter in made.parameters():
        parameter.data = torch.randn(parameter.shape)
    return made


def says(*texts: str) -> dict[str, Callable[[Tensor], Tensor]]:
    """Edits that make each row say its text, and `.` for ever after it."""
    tokenizer = speaking().tokenizer
    rows = [[*tokenizer.encode(text)] for text in texts]
    step = iter(range(1000))

    def force(logits: Tensor) -> Tensor:
        i, logits = next(step), torch.zeros_like(logits)
        for row, tokens in enumerate(rows):
            logits[row, :, tokens[i] if i < len(tokens) else tokenizer.single(".")] = 1
        return logits

    return {"hook_logits": force}


def stream(prompt: str | list[str], *texts: str, n: int = 12, **options) -> tuple[list[str], list[list[str]]]:
    """The results and, per row, the pieces that were streamed."""
    pieces: list[list[str]] = []
    found = speaking().generate(prompt, n, edits=says(*texts), on_token=pieces.append, **options)
    return [found] if isinstance(found, str) else found, [list(row) for row in zip(*pieces, strict=True)]


def test_the_text_given_comes_back_continued() -> None:
    assert stream("So: ", "it is. ", n=7)[0] == ["So: it is. "]
    assert stream(["So: ", "x"], "one", "two", n=3)[0] == ["So: one", "xtwo"]
    m = model(tokenizer=True)
    assert m.generate("w3  w4", 2) == "w3  w4 " + m.to_string(m.generate(m.to_tokens("w3 w4"), 2)[0, -2:])


@pytest.mark.parametrize(
    ("said", "stop", "expected"),
    [
        ("one\ntwo", ["\n"], "one"),
        ("one\ntwo", "\n", "one"),
        ("one, two; three", [";", ","], "one"),
        ("xyzw", ["yz"], "x"),  # the stop string spans two tokens
        ("xxabab", ["aba"], "xx"),  # … and ends inside a token
        ("xaby", ["b"], "xa"),  # … or inside one token
        ("yyz", ["yz"], "y"),  # the start of a stop string that comes to nothing is said after all
        ("aayz", ["ayyy", "yyy"], "aayz........"),
        ("stop", ["stop"], ""),
        ("never", ["!"], "never......."),
        ("waity", ["y!"], "waity......."),
    ],
)
def test_stop_strings(said: str, stop, expected: str) -> None:
    found, pieces = stream(">", said, stop=stop)
    assert found == [">" + expected]
    assert "".join(pieces[0]) == expected, "what was streamed is what was said"


def test_what_is_held_back_is_given_at_the_end() -> None:
    found, pieces = stream(">", "waity", n=5, stop=["y!"])
    assert found == [">waity"] and pieces == [["w", "a", "i", "t", "y"]]
    found, pieces = stream(">", "wyiy", n=5, stop=["y!"])
    assert pieces == [["w", "", "yi", "", "y."]]


def test_characters_of_several_tokens_are_streamed_whole() -> None:
    found, pieces = stream(">", "né😀!", n=8)
    assert found == [">né😀!"]
    assert pieces == [["n", "", "é", "", "", "", "😀", "!"]]
    found, pieces = stream(">", "né", n=2)
    assert found == [">n\N{REPLACEMENT CHARACTER}"] and "".join(pieces[0]) == found[0][1:]


def test_rows_end_by_themselves() -> None:
    """At a stop string or at the end-of-text token; the run ends with the last row."""
    found, pieces = stream([">", ">>", ">>>"], "ok!", "done", "abx<eos>y", stop=["!"], n=4)
    assert found == [">ok", ">>done", ">>>abx"]
    assert pieces == [["o", "k", "", ""], ["d", "o", "n", "e"], ["ab", "x", "", ""]]
    steps = []
    speaking().generate(">", 50, edits=says("ok!"), stop=["!"], progress=lambda *a: steps.append(a[:2]))
    assert steps == [(1, 50), (2, 50), (3, 50)]


def test_the_end_of_text_token() -> None:
    assert stream(">", "ab<eos>ab", n=3)[0] == [">ab"]
    assert stream(">", "ab<eos>ab", n=3, stop_at_eos=False)[0] == [">ab<eos>ab"]
    m = speaking()
    prompt = torch.tensor([[5], [6]])
    eos, (a, b) = m.tokenizer.eos_id, m.tokenizer.encode("xy")
    found = m.generate(prompt, 3, edits=says("x<eos>y", "xyx"))
    assert found.tolist() == [[5, a, eos, eos], [6, a, b, a]], "filled with the end-of-text token"
    assert m.generate(prompt, 3, edits=says("<eos>", "<eos>")).tolist() == [[5], [6]]


def test_generation_can_be_cancelled() -> None:
    def progress(done: int, total: int, what: str) -> None:
        if done == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        speaking().generate(">", 9, progress=progress)


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0; it must be at least 1"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"temperature": 1.0, "top_k": 0}, "top_k is 0"),
        ({"temperature": 1.0, "top_p": 0.0}, "top_p is 0.0"),
        ({"temperature": 1.0, "top_p": 1.5}, "top_p is 1.5"),
        (
            {"max_new_tokens": N_CTX},
            f"has 2 tokens and llama takes at most {N_CTX}: max_new_tokens can be {N_CTX - 1}, not {N_CTX}",
        ),
        ({"stop": ["w3"]}, "llama has no tokenizer"),
        ({"stop": ["w3", ""]}, "a stop string is empty"),
        ({"inputs": "w3"}, "llama has no tokenizer"),
        ({"inputs": torch.tensor([[D_VOCAB]])}, f"token id {D_VOCAB} is outside the vocabulary"),
        ({"edits": {"blocks.0.hook_resid": torch.zeros_like}}, "is not a site of this model"),
    ],
)
def test_what_is_refused(options: dict, message: str) -> None:
    options = {"inputs": ids(1, 2), "max_new_tokens": 2, **options}
    with pytest.raises(ValueError, match=message):
        model().generate(options.pop("inputs"), **options)


def test_empty_prompts_are_refused() -> None:
    for prompt, message in ((["x", ""], "prompt 1 is empty"), ("", "prompt 0 is empty")):
        with pytest.raises(ValueError, match=message):
            speaking().generate(prompt)


def test_a_prompt_that_just_fits() -> None:
    prompt = ids(1, N_CTX - 3)
    assert model().generate(prompt, 4).shape == (1, N_CTX + 1), "the last token is chosen but not run"
