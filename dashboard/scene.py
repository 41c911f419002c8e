"""What is looked at where it is no pair of prompts: an image, a source with its target, a text that an encoder reads.

A scene says what one run of the model reads, what a counterfactual run reads instead, and what the positions are
called; what can be measured of its heads lies beside it (`scene_heads.py`, `outcomes.py`). No Streamlit.

Letters: q query position, k key position, h head, c channel, y row, x column.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from dashboard.head_groups import Group, Row, groups_of
from dashboard.kinds import kind_of
from lens.inputs import ModelInputs

if TYPE_CHECKING:
    from lens.model import Transformer


@dataclass(frozen=True, eq=False)
class Picture:
    """An image as the model reads it, and how it is cut: `pixels` [c, y, x], `rows` × `columns` patches.

    `first` is the position of the first patch: 1 behind a class token.
    """

    CLASS_TOKEN: ClassVar[str] = "class token"

    pixels: NDArray[np.float32]
    rows: int
    columns: int
    first: int

    def place(self, position: int) -> str:
        """A position in words: `class token`, or the row and column of a patch, counted from 0."""
        if position < self.first:
            return self.CLASS_TOKEN
        return "row {} column {}".format(*divmod(position - self.first, self.columns))


@dataclass(frozen=True, eq=False)
class Scene:
    """One thing to look at in one model. `name` is what `lens.load` was asked for.

    `inputs`, `other`: one row each; `other` is the counterfactual with positions alike, or None, and `why` says so.
    `rows`: names of the positions of the source and of the target; `said`: the target's next tokens, where there
    are any. `answer`, `wrong`: classes; `classes` their names. `text`, `other_text`, `second`: what was typed.
    `ids`: tokens of a row, for scores that ask which positions hold the same one.
    """

    name: str
    model: Transformer
    title: str
    inputs: ModelInputs
    other: ModelInputs | None
    why: str
    rows: Mapping[Row, list[str]]
    ids: Mapping[Row, list[int]] = field(default_factory=dict)
    said: tuple[int, ...] = ()
    picture: Picture | None = None
    other_picture: Picture | None = None
    classes: tuple[str, ...] = ()
    answer: int | None = None
    wrong: int | None = None
    text: str = ""
    other_text: str = ""
    second: str = ""

    @property
    def kind(self) -> str:
        return kind_of(self.model.cfg)

    @property
    def groups(self) -> tuple[Group, ...]:
        return groups_of(self.model.cfg)

    def labels(self, group: Group) -> tuple[list[str], list[str]]:
        """The names of a group's queries and keys."""
        return self.rows[group.queries], self.rows[group.keys]

    def key(self, *more: Hashable) -> tuple[Hashable, ...]:
        """What results about this scene are remembered by."""
        asked = (self.said, self.answer, self.wrong)
        return (
            "scene",
            self.model.revision,
            self.name,
            digest(self.inputs),
            digest(self.other),
            asked,
            *more,
        )


def digest(inputs: ModelInputs | None) -> str:
    """A hash of what a run reads."""
    content = hashlib.sha256()
    if inputs is not None:
        _feed(content, inputs)
    return content.hexdigest()[:16]


def _feed(content: Any, inputs: ModelInputs) -> None:
    for name in ("ids", "image", "types", "mask"):
        tensor = getattr(inputs, name)
        if tensor is not None:
            content.update(f"{name}{list(tensor.shape)}{tensor.dtype}".encode())
            content.update(tensor.cpu().contiguous().numpy().tobytes())
    if isinstance(inputs.source, ModelInputs):
        content.update(b"source")
        _feed(content, inputs.source)


# ---- a source and its target


def spelled(model: Transformer, ids: list[int]) -> list[str]:
    """Tokens as texts."""
    return model.to_str_tokens(ids)


def of_source(name: str, model: Transformer, source: str, target: str = "", other: str = "") -> Scene:
    """An encoder–decoder on a source and what it says to it: `target`, or where that is empty what it generates.

    Raises:
        ValueError: a text is empty or too long, or has words that the tokenizer lacks.
    """
    if not source.strip():
        raise ValueError("The source is empty: type at least one word.")
    given = model.to_inputs(source)
    assert isinstance(given.source, ModelInputs) and given.source.ids is not None
    said = _ids_of(model, target) if target.strip() else generated(model, given.source)
    inputs = reading(model, given.source, said)
    counterfactual, why = None, "" if other.strip() else "there is no counterfactual source"
    if other.strip():
        try:
            found = model.to_inputs(other).source
            assert isinstance(found, ModelInputs) and found.ids is not None
            if found.ids.shape != given.source.ids.shape:
                why = f"the counterfactual has {found.ids.shape[1]} tokens and the source {given.source.ids.shape[1]}"
            else:
                counterfactual = reading(model, found, said)
        except ValueError as error:
            why = str(error)
    assert inputs.ids is not None
    read = inputs.ids[0].tolist()
    arrows = zip(spelled(model, read), spelled(model, list(said)), strict=True)
    return Scene(
        name, model, "Source and target", inputs, counterfactual, why,
        {
            "source": spelled(model, given.source.ids[0].tolist()),
            "target": [f"{before.strip()}→{after.strip()}" for before, after in arrows],
        },
        {"source": given.source.ids[0].tolist(), "target": read},
        said=tuple(said), text=source, other_text=other,
    )  # fmt: skip


def reading(model: Transformer, source: ModelInputs, said: list[int]) -> ModelInputs:
    """What a run reads that is to say `said`: these tokens moved by one, behind the one that begins texts.

    Raises:
        ValueError: there are too many tokens.
    """
    limit = min(model.cfg.n_ctx, model.cfg.embed.n_positions or model.cfg.n_ctx)
    if len(said) > limit:
        raise ValueError(f"The target has {len(said)} tokens; {model.name} says at most {limit}.")
    start = model.to_inputs(ModelInputs(source=source)).ids
    assert start is not None
    return model.to_inputs(ModelInputs(ids=torch.tensor([[int(start[0, 0]), *said[:-1]]]), source=source))


MOST_SAID = 48


def generated(model: Transformer, source: ModelInputs) -> list[int]:
    """What the model says to a source by greedy decoding, its end with it where it comes to one.

    Raises:
        ValueError: the source is too long.
    """
    limit = min(model.cfg.n_ctx, model.cfg.embed.n_positions or model.cfg.n_ctx, MOST_SAID)
    eos = None if model.tokenizer is None else model.tokenizer.eos_id
    given, said = model.to_inputs(ModelInputs(source=source)), list[int]()
    encoded, read = model.encode(given), given.ids
    assert read is not None
    while read.shape[1] <= limit:
        token = int(model(ModelInputs(ids=read, source=encoded), logits_at=-1)[0, -1].argmax())
        said.append(token)
        if token == eos or read.shape[1] == limit:
            break
        read = torch.cat([read, torch.tensor([[token]], device=read.device)], 1)
    return said


def _ids_of(model: Transformer, target: str) -> list[int]:
    """The tokens of a typed target, with the end that the model would say."""
    ids = model.to_tokens(target)[0].tolist()
    ids = ids[1:] if ids and ids[0] == model.cfg.start_token else ids
    eos = None if model.tokenizer is None else model.tokenizer.eos_id
    return ids if eos is None or ids[-1:] == [eos] else [*ids, eos]


# ---- a text that an encoder reads


def of_text(name: str, model: Transformer, text: str, second: str = "", other: str = "") -> Scene:
    """An encoder on a text, or on a pair of texts.

    Raises:
        ValueError: the text is empty, too long, or has words that the tokenizer lacks.
    """
    if not text.strip():
        raise ValueError("The text is empty: type at least one word.")
    inputs = read_text(model, text, second)
    assert inputs.ids is not None
    n = inputs.ids.shape[1]
    limit = min(model.cfg.n_ctx, model.cfg.embed.n_positions or model.cfg.n_ctx)
    if n > limit:
        raise ValueError(f"The text has {n} tokens; {model.name} reads at most {limit}.")
    counterfactual, why = None, "" if other.strip() else "there is no counterfactual text"
    if other.strip():
        try:
            counterfactual = read_text(model, other, second)
            assert counterfactual.ids is not None
            if counterfactual.ids.shape[1] != n:
                why = f"the counterfactual has {counterfactual.ids.shape[1]} tokens and the text {n}"
                counterfactual = None
        except ValueError as error:
            why = str(error)
    ids = inputs.ids[0].tolist()
    return Scene(
        name, model, "Own text", inputs, counterfactual, why, {"target": spelled(model, ids)}, {"target": ids},
        text=text, other_text=other, second=second,
    )  # fmt: skip


def read_text(model: Transformer, text: str, second: str) -> ModelInputs:
    """A text, or a pair of texts, as an encoder reads them."""
    return model.to_inputs([(text, second)] if second.strip() else [text])


# ---- an image


def of_image(
    name: str,
    model: Transformer,
    pixels: NDArray[np.float32],
    other: NDArray[np.float32] | None = None,
    *,
    title: str = "Image",
    classes: tuple[str, ...] = (),
    answer: int | None = None,
    wrong: int | None = None,
) -> Scene:
    """A vision transformer on an image [c, y, x] as its processor scales it, and a counterfactual one.

    Raises:
        ValueError: an image is of another size than the model reads.
    """
    patches = model.cfg.embed.patches
    assert patches is not None
    made = [None if one is None else _image(model, one) for one in (pixels, other)]
    rows, columns = patches.grid
    pictures = [
        None if one is None else Picture(one, rows, columns, int(patches.class_token))
        for one in (pixels, other)
    ]
    assert made[0] is not None and pictures[0] is not None
    labels = [pictures[0].place(i) for i in range(patches.n_positions)]
    short = [
        "class" if i < int(patches.class_token) else "r{} c{}".format(*divmod(i - int(patches.class_token), columns))
        for i in range(len(labels))
    ]  # fmt: skip
    return Scene(
        name, model, title, made[0], made[1], "" if made[1] is not None else "there is no counterfactual image",
        {"target": short}, picture=pictures[0], other_picture=pictures[1], classes=classes, answer=answer,
        wrong=wrong,
    )  # fmt: skip


def _image(model: Transformer, pixels: NDArray[np.float32]) -> ModelInputs:
    image = torch.as_tensor(pixels, dtype=model.dtype)[None]
    return model.to_inputs(ModelInputs(image=image))
