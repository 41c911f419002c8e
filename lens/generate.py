"""Continue a text, one token at a time, on cached keys and values.

1. The prompt is padded on the left, so that all rows end together, and run once.
2. Each step unembeds the last position only, chooses a token (greedy, or sampled with temperature, top-k and
   top-p), and runs that one position on the cache.
3. A row ends at the end-of-sequence token or at a stop string; the run ends when all rows have.

Hooks and `edits` act on every step, so a steered model can be read in its own words.

Letters: b batch, p position, v vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lens import sounds
from lens.arguments import check_causal, check_ids, check_length
from lens.arguments import inputs as inputs_of
from lens.inputs import ModelInputs, token_ids
from lens.progress import Progress, silent
from lens.taps import OFF, Edits, Taps
from lens.text import to_tokens, tokenizer_of

if TYPE_CHECKING:
    from lens.model import Transformer
    from lens.tokens import Tokenizer


def generate(
    model: Transformer,
    inputs: Any,
    max_new_tokens: int = 20,
    *,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    stop: Sequence[str] = (),
    stop_at_eos: bool = True,
    suppress: Sequence[int] = (),
    prepend_bos: bool | None = None,
    edits: Edits | None = None,
    on_token: Callable[[list[str]], None] | None = None,
    progress: Progress = silent,
) -> Any:
    """The text(s) given and what they are continued with; for ids (or inputs that hold them), ids [b, p + new].

    An encoder–decoder gives what it says to a source, without the source; of a sound, text where it has a
    tokenizer.

    A row of ids that ends early is filled with the end-of-text token (0, where there is none).

    Args:
        temperature: 0 chooses the likeliest token; above, samples from logits / temperature.
        top_k: sample among the k likeliest tokens only.
        top_p: sample among the fewest tokens whose probabilities reach p.
        seed: for sampling; the same seed gives the same text.
        stop: a row ends where one of these strings appears in its new text, which is cut before it (ids
            are not cut).
        suppress: ids that are never chosen (Whisper's are `cfg.hf["suppress_tokens"]`).
        stop_at_eos: a row ends at the end-of-text token, which is not part of its text.
        prepend_bos: for text: put the beginning-of-text token in front; None: as the tokenizer says.
        edits: site → function of the activation, on every step.
        on_token: called after each step with each row's newest piece of text, for streaming. All pieces of
            a row together are its new text; what may yet become a stop string or half a character waits.

    Raises:
        ValueError: an option is out of range, a prompt is empty, or prompt and new tokens do not fit the context.
    """
    stream = Stream(
        model, inputs, max_new_tokens, prepend_bos=prepend_bos, stop=stop, stop_at_eos=stop_at_eos
    )
    choose = sampler(temperature, top_k, top_p, seed, model.device)
    banned = torch.tensor(list(suppress), dtype=torch.long, device=model.device)
    if len(banned):
        check_ids("suppressed id", banned, model.cfg.d_vocab, f"the vocabulary of {model.cfg.name}")

    def allowed(logits: Tensor) -> Tensor:
        return choose(logits.index_fill(-1, banned, -torch.inf))

    for step, pieces in enumerate(stream.steps(allowed, edits)):
        progress(step + 1, max_new_tokens, "generate")
        if on_token is not None:
            on_token(pieces)
    return stream.result()


def sampler(
    temperature: float, top_k: int | None, top_p: float | None, seed: int | None, device: torch.device
) -> Callable[[Float[Tensor, "b v"]], Int[Tensor, " b"]]:
    """A function from logits to token ids.

    Raises:
        ValueError: an option is out of range.
    """
    if temperature < 0:
        raise ValueError(f"temperature is {temperature}; it must be 0 (greedy) or above")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k is {top_k}; it must be at least 1")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p is {top_p}; it must be above 0 and at most 1")
    if temperature == 0:
        return lambda logits: logits.argmax(-1)
    generator = torch.Generator(device)
    generator.seed() if seed is None else generator.manual_seed(seed)

    def choose(logits: Tensor) -> Tensor:
        logits = logits.float() / temperature
        if top_k is not None:
            smallest = logits.topk(min(top_k, logits.shape[-1]), -1).values[:, -1:]
            logits = logits.masked_fill(logits < smallest, -torch.inf)
        if top_p is not None:
            ranked, order = logits.sort(-1, descending=True)
            before = ranked.softmax(-1).cumsum(-1) - ranked.softmax(-1)
            drop = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, order, before >= top_p)
            logits = logits.masked_fill(drop, -torch.inf)
        return torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]

    return choose


class Stream:
    """The state of one generation: prompt, cache, and what each row has said."""

    def __init__(
        self, model: Transformer, inputs: Any, max_new_tokens: int, *, prepend_bos: bool | None, stop: Sequence[str],
        stop_at_eos: bool,
    ) -> None:  # fmt: skip
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens is {max_new_tokens}; it must be at least 1")
        check_causal(model.cfg, "it does not continue them")
        if model.cfg.unembed is None:
            raise ValueError(f"{model.cfg.name} has no unembedding: it does not continue texts")
        stop = (stop,) if isinstance(stop, str) else tuple(stop)
        if not all(stop):
            raise ValueError("a stop string is empty; every text contains it")
        self.model, self.limit, self.stop = model, max_new_tokens, stop
        if model.cfg.source is None and (isinstance(inputs, Mapping) or token_ids(inputs) is not None):
            inputs = model.to_inputs(inputs)
        self.given: Any = inputs
        self.source = None
        if model.cfg.source is not None:
            given = inputs_of(model, inputs, None, 0).to(model.device)
            (self.ids, self.valid), self.source = _ended_together(given), given.source
        elif isinstance(inputs, ModelInputs):
            self.ids, self.valid = _ended_together(inputs.to(model.device))
        elif isinstance(inputs, Tensor):
            self.ids, self.valid = (inputs[None] if inputs.ndim == 1 else inputs).to(model.device), None
        else:
            self.ids, self.valid = to_tokens(model, inputs, prepend_bos, side="left")
        _check_room(model, self.ids.shape[1], max_new_tokens)
        self.eos = model.tokenizer.eos_id if model.tokenizer is not None and stop_at_eos else None
        if stop:
            tokenizer_of(model)
        self.rows = [Row(model.tokenizer, ids, stop) for ids in self._prompts()]

    def _prompts(self) -> list[list[int]]:
        """What new text stands behind; of an encoder–decoder, nothing."""
        if self.source is not None:
            return [[] for _ in self.ids]
        keep = torch.ones_like(self.ids, dtype=torch.bool) if self.valid is None else self.valid
        return [ids[real].tolist() for ids, real in zip(self.ids, keep, strict=True)]

    @torch.no_grad()
    def steps(self, choose: Callable[[Tensor], Tensor], edits: Edits | None) -> Iterator[list[str]]:
        """Run to the end, yielding each row's newest piece of text."""
        past = self.model.new_past()
        ids, mask, source = self.ids, self.valid, self.source
        for step in range(self.limit):
            taps = Taps(edits=edits) if edits else OFF
            given = ModelInputs(ids=ids, mask=mask, source=source)
            logits = self.model(given, past=past, taps=taps, logits_at=-1)
            token = choose(logits[:, 0])
            last = step == self.limit - 1
            yield [
                row.take(None if t == self.eos else t, last)
                for row, t in zip(self.rows, token.tolist(), strict=True)
            ]
            if all(row.done for row in self.rows):
                return
            ids, mask, source = token[:, None], None, None  # the past keeps what the encoder made

    @property
    def in_words(self) -> bool:
        """Is text to be given back: was text given, or a sound to a model that has words?"""
        given = self.given
        if sounds.reads(self.model.cfg):
            return self.model.tokenizer is not None and not isinstance(given, ModelInputs)
        return isinstance(given, str) or (isinstance(given, list) and isinstance(given[0], str))

    def result(self) -> Any:
        """Text(s) for text, ids for ids. What answers a source stands alone, behind the token that begins it."""
        if self.source is not None and self.in_words:
            said = [row.said for row in self.rows]
            return said[0] if isinstance(self.given, str) or sounds.is_one(self.given) else said
        if isinstance(self.given, str):
            return self.given + self.rows[0].said
        if self.in_words:
            return [text + row.said for text, row in zip(self.given, self.rows, strict=True)]
        width = max(len(row.new) for row in self.rows)
        pad = 0 if self.eos is None else self.eos
        new = [row.new + [pad] * (width - len(row.new)) for row in self.rows]
        added = torch.tensor(new, dtype=self.ids.dtype, device=self.ids.device).view(len(new), width)
        return torch.cat([self.ids, added], 1)


def _check_room(model: Transformer, n: int, new: int) -> None:
    """Raise unless a prompt of n tokens and the new ones fit the context; the last is said and not read."""
    check_length(model.cfg, n)
    try:
        check_length(model.cfg, n + new - 1)
    except ValueError:
        limit = min(model.cfg.n_ctx, model.cfg.embed.n_positions or model.cfg.n_ctx)
        takes = f"the prompt has {n} tokens and {model.cfg.name} takes at most {limit}"
        raise ValueError(f"{takes}: max_new_tokens can be {limit - n + 1}, not {new}") from None


def _ended_together(given: ModelInputs) -> tuple[Tensor, Tensor | None]:
    """Ids and mask of rows that can be continued.

    Raises:
        ValueError: there are no ids, or a row is padded at its end.
    """
    if given.ids is None:
        raise ValueError("generation continues token ids, not a residual stream")
    valid = None if given.mask is None else given.mask.bool()
    if valid is not None and not bool(valid[:, -1].all()):
        raise ValueError("generation continues rows that end together: pad them on the left")
    return given.ids, valid


class Row:
    """What one row has said so far. `said` is settled: nothing that follows takes it back."""

    def __init__(self, tokenizer: Tokenizer | None, prompt: list[int], stop: Sequence[str]) -> None:
        self.tokenizer, self.prompt, self.stop = tokenizer, prompt, stop
        self.before = "" if tokenizer is None else tokenizer.decode(prompt)
        self.new: list[int] = []
        self.said, self.done = "", False

    def take(self, token: int | None, last: bool) -> str:
        """Add a token (None: the text ends here), and give the piece of text that it settles."""
        if self.done:
            return ""
        if token is not None:
            self.new.append(token)
        text = self._decoded()
        ends = [text.index(s) for s in self.stop if s in text]
        self.done = bool(ends) or token is None or last
        settled = text[: min(ends)] if ends else text if self.done else text[: len(text) - self._open(text)]
        piece = settled[len(self.said) :]
        self.said += piece
        return piece

    def _decoded(self) -> str:
        """The new text as it stands behind the prompt: some decoders drop a space at the very beginning."""
        if self.tokenizer is None:
            return ""
        whole = self.tokenizer.decode(self.prompt + self.new)
        return whole[len(self.before) :] if whole.startswith(self.before) else self.tokenizer.decode(self.new)

    def _open(self, text: str) -> int:
        """How many characters at the end may still change: the start of a stop string, or of a character."""
        halves = [n for s in self.stop for n in range(1, len(s)) if text.endswith(s[:n])]
        broken = len(text) - len(text.rstrip("\N{REPLACEMENT CHARACTER}"))
        return max([*halves, broken])
