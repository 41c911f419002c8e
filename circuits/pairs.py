"""Pairs of prompts: a clean one that shows a behaviour, and a corrupt one of equal length that does not.

Shapes: n pair, p position, a answer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from circuits.pairs_checks import check_counts, check_ids, check_lengths, check_sense, check_shapes
from lens.mixer import check_attention

if TYPE_CHECKING:
    from lens.config import ModelConfig
    from lens.model import Transformer
    from lens.tokens import Tokenizer

FORMAT = "circuits.pairs"
TENSORS_FILE = "pairs.safetensors"
TEXT_FILE = "pairs.json"

Answer = str | int
Answers = Sequence[Answer | Sequence[Answer]]


@dataclass(frozen=True, eq=False, repr=False)
class Pairs:
    """Clean and corrupt prompts with their right and wrong answers, all on the CPU.

    `clean`, `corrupt`: int64 [n, p]. `attention_mask`: bool [n, p], shared by both; None where every token is
    real. `answers`, `wrong`: int64 [n], or [n, a] where several tokens count, filled up with -1; a pair may
    have no wrong answer. `labels`: named positions, int64 [n] each. `groups`: what kind of prompt each pair is
    (its template), or empty. The texts are empty where the pairs were made from tokens without a tokenizer.
    """

    clean: Tensor
    corrupt: Tensor
    answers: Tensor
    wrong: Tensor
    attention_mask: Tensor | None = None
    labels: Mapping[str, Tensor] = field(default_factory=dict)
    task: str = ""
    clean_text: tuple[str, ...] = ()
    corrupt_text: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_shapes(self)

    # ---- making them

    @classmethod
    def from_text(
        cls,
        model: Transformer,
        clean: Sequence[str],
        corrupt: Sequence[str],
        answers: Answers,
        wrong: Answers | None = None,
        *,
        prepend_bos: bool | None = None,
    ) -> Pairs:
        """Pairs from prompts, tokenised as `model` does it; `prepend_bos=None` means as the tokenizer says.

        An answer is the text of one token (" Mary", with its space) or a token id; a list of them where
        several count. `wrong=None`: there is nothing to compare with, which `log_prob`, `kl`, `rank` and
        `accuracy` do not need. Prompts of different pairs may differ in length and are then padded on the
        right.

        Raises:
            ValueError: the lists are empty or of different lengths, a clean and its corrupt prompt have
                different numbers of tokens or are the same, an answer is not one token or is both right and
                wrong, a prompt is longer than the context.
        """
        clean, corrupt = list(clean), list(corrupt)
        wrong = [[]] * len(clean) if wrong is None else wrong
        check_counts(clean=clean, corrupt=corrupt, answers=answers, wrong=wrong)
        if model.tokenizer is None:
            raise ValueError(f"{model.cfg.name} has no tokenizer; use Pairs.from_tokens")
        tokenizer: Tokenizer = model.tokenizer
        ids, mask = tokenizer.batch(clean, prepend_bos=prepend_bos, side="right")
        other_ids, other_mask = tokenizer.batch(corrupt, prepend_bos=prepend_bos, side="right")
        check_lengths(mask.sum(1).tolist(), other_mask.sum(1).tolist())
        pairs = cls(
            clean=ids,
            corrupt=other_ids,
            answers=_answer_ids(tokenizer, answers, "answer"),
            wrong=_answer_ids(tokenizer, wrong, "wrong answer"),
            attention_mask=None if mask.all() else mask.bool(),
            clean_text=tuple(clean),
            corrupt_text=tuple(corrupt),
        )
        pairs.check(model.cfg)
        check_sense(pairs, model.tokenizer)
        return pairs

    @classmethod
    def from_tokens(
        cls,
        model: Transformer,
        clean: Tensor | Sequence[Sequence[int]],
        corrupt: Tensor | Sequence[Sequence[int]],
        answers: Tensor | Sequence[int] | Sequence[Sequence[int]],
        wrong: Tensor | Sequence[int] | Sequence[Sequence[int]] | None = None,
        *,
        attention_mask: Tensor | None = None,
        labels: Mapping[str, Tensor] | None = None,
        task: str = "",
    ) -> Pairs:
        """Pairs from token ids, which are used as they are: nothing is put before them.

        Rows of different lengths are padded on the right. The texts are filled in where the model has a
        tokenizer.

        Raises:
            ValueError: as for `from_text`, or an id outside the vocabulary.
        """
        wrong = [[]] * len(clean) if wrong is None else wrong
        check_counts(clean=clean, corrupt=corrupt, answers=answers, wrong=wrong)
        check_lengths([len(row) for row in clean], [len(row) for row in corrupt])
        ids, mask = _padded(clean)
        other_ids, _ = _padded(corrupt)
        if attention_mask is None and not mask.all():
            attention_mask = mask
        pairs = cls(
            clean=ids,
            corrupt=other_ids,
            answers=_rectangle(answers),
            wrong=_rectangle(wrong),
            attention_mask=attention_mask,
            labels={name: torch.as_tensor(at, dtype=torch.int64) for name, at in (labels or {}).items()},
            task=task,
        )
        pairs.check(model.cfg)
        check_sense(pairs, model.tokenizer)
        if model.tokenizer is None:
            return pairs
        clean_text, corrupt_text = (pairs._texts(model.tokenizer, t) for t in (pairs.clean, pairs.corrupt))
        return replace(pairs, clean_text=clean_text, corrupt_text=corrupt_text)

    def _texts(self, tokenizer: Tokenizer, ids: Tensor) -> tuple[str, ...]:
        rows = zip(ids, self.mask, strict=True)
        return tuple(tokenizer.decode(row[real].tolist()) for row, real in rows)

    # ---- reading them

    def __len__(self) -> int:
        return self.clean.shape[0]

    def __repr__(self) -> str:
        lengths = self.mask.sum(1)
        low, high = int(lengths.min()), int(lengths.max())
        tokens = f"{low}" if low == high else f"{low} to {high}"
        name = f"{self.task}: " if self.task else ""
        return f"Pairs({name}{len(self)} of {tokens} tokens, alike in the first {self.first_difference})"

    def swapped(self) -> Pairs:
        """Clean and corrupt exchanged, for denoising: patches then bring the behaviour back.

        Answers and labels stay, so the metric still measures the behaviour of what was the clean prompt.
        """
        return replace(
            self,
            clean=self.corrupt,
            corrupt=self.clean,
            clean_text=self.corrupt_text,
            corrupt_text=self.clean_text,
        )

    @property
    def n_positions(self) -> int:
        return self.clean.shape[1]

    @property
    def mask(self) -> Tensor:
        """Bool [n, p]: the real tokens, whether or not there is padding."""
        if self.attention_mask is None:
            return torch.ones_like(self.clean, dtype=torch.bool)
        return self.attention_mask

    @property
    def ends(self) -> Tensor:
        """Int64 [n]: the position of each prompt's last real token, where the answer is predicted."""
        return (self.mask * torch.arange(self.n_positions)).amax(1)

    @property
    def first_difference(self) -> int:
        """How many positions all pairs share: the first position at which any clean and corrupt differ.

        It is `n_positions` where clean and corrupt are the same.
        """
        differs = ((self.clean != self.corrupt) & self.mask).any(0).nonzero()
        return int(differs[0]) if len(differs) else self.n_positions

    def __getitem__(self, which: int | slice | Sequence[int] | Tensor) -> Pairs:
        """The pairs chosen by an index (giving one pair), a slice, a list of indices or a bool mask."""
        index = torch.arange(len(self))
        if isinstance(which, int):
            rows = index[which].reshape(1)
        else:
            rows = index[which if isinstance(which, slice) else torch.as_tensor(which)]
        return replace(
            self,
            clean=self.clean[rows],
            corrupt=self.corrupt[rows],
            answers=self.answers[rows],
            wrong=self.wrong[rows],
            attention_mask=None if self.attention_mask is None else self.attention_mask[rows],
            labels={name: at[rows] for name, at in self.labels.items()},
            clean_text=tuple(self.clean_text[i] for i in rows.tolist()) if self.clean_text else (),
            corrupt_text=tuple(self.corrupt_text[i] for i in rows.tolist()) if self.corrupt_text else (),
            groups=tuple(self.groups[i] for i in rows.tolist()) if self.groups else (),
        )

    def check(self, cfg: ModelConfig) -> None:
        """Whether a model can read these pairs.

        Raises:
            ValueError: a prompt is longer than the context, or an id is outside the vocabulary; or the model
                does not predict the next token.
        """
        check_kind(cfg)
        limit = min(cfg.n_ctx, cfg.embed.n_positions or cfg.n_ctx)
        if self.n_positions > limit:
            i = int(self.mask.sum(1).argmax())
            n = self.n_positions
            raise ValueError(f"pair {i}: the prompt has {n} tokens; {cfg.name} takes at most {limit}")
        real = self.mask
        check_ids("clean", torch.where(real, self.clean, 0), 0, cfg.embed.d_vocab)
        check_ids("corrupt", torch.where(real, self.corrupt, 0), 0, cfg.embed.d_vocab)
        check_ids("answer", self.answers, -1, cfg.d_vocab)
        check_ids("wrong answer", self.wrong, -1, cfg.d_vocab)

    @property
    def digest(self) -> str:
        """A hash of the contents: equal pairs have equal digests, on every machine."""
        content = hashlib.sha256()
        for name, tensor in sorted(self._tensors().items()):
            content.update(f"{name}{list(tensor.shape)}".encode())
            content.update(tensor.to(torch.int64).numpy().astype("<i8").tobytes())
        return f"sha256:{content.hexdigest()[:16]}"

    # ---- files

    def to_csv(self, path: str | Path, model: Transformer | None = None) -> None:
        """Write a CSV file that `Task.from_csv` reads again; see `circuits.pairs_writing.write`.

        With a model, prompts and answers are texts; without, they are token ids, which are exact.

        Raises:
            ValueError: a text does not give its tokens back.
            OSError: the file cannot be written.
        """
        from circuits.pairs_writing import write

        write(self, path, "csv", model)

    def to_jsonl(self, path: str | Path, model: Transformer | None = None) -> None:
        """As `to_csv`, one JSON object on each line."""
        from circuits.pairs_writing import write

        write(self, path, "jsonl", model)

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {name: getattr(self, name) for name in ("clean", "corrupt", "answers", "wrong")}
        if self.attention_mask is not None:
            tensors["attention_mask"] = self.attention_mask
        return tensors | {f"labels.{name}": at for name, at in self.labels.items()}

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types: task, digest, and for each pair its texts, answers and named positions."""
        return {
            "format": FORMAT,
            "version": 1,
            "task": self.task,
            "n": len(self),
            "digest": self.digest,
            "first_difference": self.first_difference,
            "clean": list(self.clean_text),
            "corrupt": list(self.corrupt_text),
            "answers": self.answers.tolist(),
            "wrong": self.wrong.tolist(),
            "labels": {name: at.tolist() for name, at in self.labels.items()},
            "groups": list(self.groups),
        }

    def save(self, directory: str | Path) -> None:
        """Write `pairs.safetensors` and `pairs.json` into a folder (made if needed).

        Raises:
            OSError: the folder cannot be written.
        """
        from safetensors.torch import save

        from lens import atomic

        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.contiguous().clone() for name, tensor in self._tensors().items()}
        atomic.write_bytes(directory / TENSORS_FILE, save(tensors, {"format": FORMAT}))
        atomic.write_json(directory / TEXT_FILE, self.to_dict())

    @classmethod
    def load(cls, directory: str | Path) -> Pairs:
        """The inverse of `save`.

        Raises:
            ValueError: a file is missing or damaged, or the two files do not belong together.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load

        directory = Path(directory)
        try:
            tensors = load((directory / TENSORS_FILE).read_bytes())
            texts = json.loads((directory / TEXT_FILE).read_text(encoding="utf-8"))
            labels = {n.removeprefix("labels."): t for n, t in tensors.items() if n.startswith("labels.")}
            pairs = cls(
                **{name: tensors[name] for name in ("clean", "corrupt", "answers", "wrong")},
                attention_mask=tensors.get("attention_mask"),
                labels=labels,
                task=texts["task"],
                clean_text=tuple(texts["clean"]),
                corrupt_text=tuple(texts["corrupt"]),
                groups=tuple(texts.get("groups", ())),
            )
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"no pairs that this program can read in {directory}: {error}") from error
        if pairs.digest != texts.get("digest"):
            raise ValueError(f"{TENSORS_FILE} and {TEXT_FILE} in {directory} do not belong together")
        return pairs


def _answer_ids(tokenizer: Tokenizer, answers: Answers, what: str) -> Tensor:
    rows = [
        [_answer_id(tokenizer, one, f"pair {i}: {what}") for one in _several(answer)]
        for i, answer in enumerate(answers)
    ]
    return _rectangle(rows if any(len(row) != 1 for row in rows) else [row[0] for row in rows])


def _answer_id(tokenizer: Tokenizer, answer: Answer, what: str) -> int:
    if isinstance(answer, int):
        return answer
    try:
        return tokenizer.single(answer)
    except ValueError as error:
        raise ValueError(f"{what} {error}") from error


def _several(answer: Answer | Sequence[Answer]) -> Sequence[Answer]:
    return [answer] if isinstance(answer, str | int) else answer


def _padded(rows: Tensor | Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Ids [n, p] filled up with 0 on the right, and a bool mask of the real ones."""
    tensors = [torch.as_tensor(row, dtype=torch.int64) for row in rows]
    lengths = torch.tensor([len(row) for row in tensors])
    ids = torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True)
    return ids, torch.arange(ids.shape[1]) < lengths[:, None]


def _rectangle(values: Any) -> Tensor:
    """[n] or [n, a] ids, shorter rows filled up with -1."""
    if isinstance(values, Tensor):
        return values.to(device="cpu", dtype=torch.int64)
    if all(isinstance(value, int) for value in values):
        return torch.tensor(values, dtype=torch.int64)
    rows = [torch.as_tensor(row, dtype=torch.int64).reshape(-1) for row in values]
    if not any(len(row) for row in rows):
        return torch.full((len(rows),), -1)
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)


def check_kind(cfg: ModelConfig) -> None:
    """Raise unless circuits can be found in such a model.

    Raises:
        ValueError: it has an encoder, looks in both directions, predicts no tokens or has other mixers than attention.
    """
    if cfg.source is not None:
        raise ValueError(f"{cfg.name} has an encoder; circuits are found in models of one stack")
    if not cfg.causal:
        raise ValueError(f"{cfg.name} looks in both directions; circuits are found in causal models")
    if cfg.unembed is None:
        raise ValueError(f"{cfg.name} has no unembedding; circuits are found in models that predict tokens")
    check_attention(cfg, "the nodes of a circuit are attention heads")
