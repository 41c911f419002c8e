"""Continue a text, one token at a time, on cached keys and values.

1. The prompt is padded on the left, so that all rows end together, and run once.
2. Each step unembeds the last position only, chooses a token (greedy, or sampled with temperature, top-k and
   top-p), and runs that one position on the cache.
3. A row ends at the end-of-sequence token or at a stop string; the run ends when all rows have.

Hooks and `edits` act on every step, so a steered model can be read in its own words.

Letters: b batch, p position, v vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lens.progress import Progress, silent
from lens.taps import OFF, Edits, Taps
from lens.text import tokenizer_of

if TYPE_CHECKING:
    from lens.model import Transformer


def generate(
    model: Transformer,
    inputs: str | list[str] | Tensor,
    max_new_tokens: int = 20,
    *,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    stop: Sequence[str] = (),
    stop_at_eos: bool = True,
    prepend_bos: bool | None = None,
    edits: Edits | None = None,
    on_token: Callable[[list[str]], None] | None = None,
    progress: Progress = silent,
) -> Any:
    """The continued text(s) for text, ids [b, p + new] for ids.

    Args:
        temperature: 0 chooses the likeliest token; above, samples from logits / temperature.
        top_k: sample among the k likeliest tokens only.
        top_p: sample among the fewest tokens whose probabilities reach p.
        seed: for sampling; the same seed gives the same text.
        stop: a row ends where one of these strings appears in its new text, and is cut before it.
        edits: site → function of the activation, on every step.
        on_token: called after each step with each row's newest piece of text, for streaming.

    Raises:
        ValueError: an option is out of range, or prompt and new tokens do not fit the context.
    """
    stream = Stream(
        model, inputs, max_new_tokens, prepend_bos=prepend_bos, stop=stop, stop_at_eos=stop_at_eos
    )
    choose = sampler(temperature, top_k, top_p, seed, model.device)
    for step, pieces in enumerate(stream.steps(choose, edits)):
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
        if isinstance(stop, str):
            stop = (stop,)
        self.model, self.limit, self.stop = model, max_new_tokens, tuple(stop)
        self.one = isinstance(inputs, str)
        self.text = not isinstance(inputs, Tensor)
        if isinstance(inputs, Tensor):
            self.ids = (inputs[None] if inputs.ndim == 1 else inputs).to(model.device)
            self.valid = torch.ones_like(self.ids, dtype=torch.bool)
        else:
            texts = [inputs] if isinstance(inputs, str) else list(inputs)
            ids, valid = tokenizer_of(model).batch(texts, prepend_bos=prepend_bos, side="left")
            self.ids, self.valid = ids.to(model.device), valid.to(model.device)
        model.frame(self.ids.shape[1] + max_new_tokens - 1)  # raises if it cannot fit
        self.eos = model.tokenizer.eos_id if model.tokenizer is not None and stop_at_eos else None
        if stop:
            tokenizer_of(model)
        self.new: list[list[int]] = [[] for _ in range(len(self.ids))]
        self.cut: list[int | None] = [None] * len(
            self.ids
        )  # length in characters of a row that met a stop string
        self.done = [False] * len(self.ids)

    @torch.no_grad()
    def steps(self, choose: Callable[[Tensor], Tensor], edits: Edits | None) -> Iterator[list[str]]:
        """Run to the end, yielding each row's newest piece of text."""
        past = self.model.new_past()
        ids, mask = self.ids, self.valid
        for _ in range(self.limit):
            taps = Taps(edits=edits) if edits else OFF
            logits = self.model(ids, attention_mask=mask, past=past, taps=taps, logits_at=-1)
            token = choose(logits[:, 0])
            yield [self._take(row, int(t)) for row, t in enumerate(token)]
            if all(self.done):
                return
            ids, mask = token[:, None], torch.ones_like(token[:, None], dtype=torch.bool)

    def _take(self, row: int, token: int) -> str:
        if self.done[row]:
            return ""
        if token == self.eos:
            self.done[row] = True
            return ""
        before = self._said(row)
        self.new[row].append(token)
        said = self._said(row)
        ends = [said.index(s) for s in self.stop if s in said]
        if ends:
            self.done[row], self.cut[row] = True, min(ends)
            said = said[: min(ends)]
        return said[len(before) :]

    def _said(self, row: int) -> str:
        if self.model.tokenizer is None:
            return ""
        said = self.model.tokenizer.decode(self.new[row])
        return said if self.cut[row] is None else said[: self.cut[row]]

    def result(self) -> Any:
        """Text(s) for text, ids for ids; rows that ended early are filled with the pad or end token."""
        if self.text:
            prompts = [
                self.model.tokenizer.decode(ids[m].tolist())
                for ids, m in zip(self.ids, self.valid, strict=True)
            ]
            texts = [prompt + self._said(row) for row, prompt in enumerate(prompts)]
            return texts[0] if self.one else texts
        width = max(len(new) for new in self.new)
        pad = next((i for i in (self.eos, getattr(self.model.tokenizer, "pad_id", None)) if i is not None), 0)
        rows = [new + [pad] * (width - len(new)) for new in self.new]
        return torch.cat(
            [
                self.ids,
                torch.tensor(rows, dtype=self.ids.dtype, device=self.ids.device).view(len(rows), width),
            ],
            1,
        )
