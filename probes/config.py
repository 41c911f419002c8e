"""The settings of a run: from YAML, from flags, and written back so that they make the same run again.

Every setting has one name, in files and in `Config`; flags of the command line override a file. Names that do not
exist are refused with the nearest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from lens.nearest import unknown
from probes.given import path as a_path
from probes.given import sort

Numbers = float | list[float] | str | None


@dataclass(frozen=True)
class Config:
    """What `probes train` does. The arguments of `probes.harvest` and `probes.sweep` have the same names.

    Args:
        dataset: a known data set (`probes datasets`), or a .csv or .jsonl file.
        dataset_options: arguments of the data set, or of `Labelled.from_table` for a file.
        model: a known name, a folder, a .gguf file or a Hugging Face id.
        site: a shorthand such as "resid_post", or a full name.
        layers: "all", or numbers and ranges: "0-5,11".
        positions: which token of each row is read.
        prepend_bos: whether a beginning-of-text token is put in front of each text; None: as the tokenizer does.
        estimator, options: a kind of `probes.estimators` and further parameters of it.
        targets: by name; None: the main one.
        C, alpha: a penalty, several, or "grid" (the default of kinds with a C, in place of None).
        cv, groups, controls, permutations, mdl, floors, metrics, seed, bootstrap: see `probes.sweep`.
        answers: {"template": …, "words": {class: word}}, how the model is asked (the floor "behaviour").
        activations: a folder of activations, made if it is not there; None: they are held in memory.
        keep: dtype of the kept activations; None: float32.
        batch_size, device, dtype: of the model's runs.
    """

    dataset: str
    dataset_options: dict[str, Any] = field(default_factory=dict)
    model: str = "smollm2"
    site: str = "resid_post"
    layers: str | int = "all"
    positions: str | int = "last"
    prepend_bos: bool | None = None
    estimator: str = "logistic"
    options: dict[str, Any] = field(default_factory=dict)
    targets: list[str] | None = None
    C: Numbers = None
    alpha: Numbers = None
    cv: int = 5
    groups: bool | str | list[str] | None = None
    controls: int | None = None
    permutations: int = 0
    mdl: bool = False
    floors: list[str] | None = None
    metrics: list[str] | None = None
    answers: dict[str, Any] | None = None
    seed: int = 0
    bootstrap: int = 1000
    activations: str | None = None
    keep: str | None = None
    batch_size: int = 32
    device: str | None = None
    dtype: str | None = None

    def __post_init__(self) -> None:
        for name in _FITS:
            _check(name, getattr(self, name))
        if self.answers is not None:
            for name in self.answers:
                if name not in ("template", "words"):
                    raise ValueError(unknown("setting", name, ("template", "words"), of="answers"))
            words = self.answers.get("words")
            if not _mapping(words) or not words or not all(isinstance(word, str) for word in words.values()):
                raise ValueError(
                    "the setting answers needs words: a text for each class, such as {true: ' true'}"
                )

    @classmethod
    def of(cls, given: Mapping[str, Any], where: str = "the settings") -> Config:
        """From names and values.

        Raises:
            ValueError: a name that does not exist, no data set, or a value of the wrong sort.
        """
        if not isinstance(given, Mapping):
            raise ValueError(f"{where} are {sort(given)}; they must be values by name")
        known = [f.name for f in fields(cls)]
        for name in given:
            if name not in known:
                raise ValueError(f"{where}: {unknown('setting', str(name), known)}")
        if "dataset" not in given:
            raise ValueError(f"{where}: no dataset is named")
        try:
            for name, value in given.items():
                _check(name, value)
            return cls(**given)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error

    @classmethod
    def read(cls, path: str | Path, **given: Any) -> Config:
        """From a YAML file; what is `given` besides overrides it.

        Raises:
            ValueError: the file cannot be read or is no YAML mapping, or as for `of`.
        """
        return cls.of({**read_yaml(a_path(path)), **given}, repr(str(path)))

    def with_(self, **given: Any) -> Config:
        """The same with some settings changed."""
        return replace(self, **given)

    def to_yaml(self) -> str:
        """All settings, in the order of the class."""
        import yaml

        return yaml.safe_dump(asdict(self), sort_keys=False, allow_unicode=True, default_flow_style=False)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Raises:
        ValueError: it cannot be read, or is something else; one line that names file and line.
    """
    import yaml

    try:
        found = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{str(path)!r} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{str(path)!r} is not UTF-8 text") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        raise ValueError(f"{str(path)!r}{line} is not YAML: {getattr(error, 'problem', error)}") from error
    found = {} if found is None else found
    if not isinstance(found, dict):
        raise ValueError(f"{str(path)!r} holds no settings: name: value, one a line")
    return found


def _check(name: str, value: Any) -> None:
    """Raise a ValueError unless a setting has a value of its sort."""
    fits, what = _FITS[name]
    if not fits(value):
        told = f"{name} (how many folds)" if name == "cv" else name
        raise ValueError(f"the setting {told} is {value!r}; it must be {what}")


def _whole(least: int) -> tuple[Any, str]:
    return (
        lambda v: isinstance(v, int) and not isinstance(v, bool) and v >= least,
        f"a whole number from {least} on",
    )


def _or_none(rule: tuple[Any, str]) -> tuple[Any, str]:
    return (lambda v: v is None or rule[0](v), f"{rule[1]}, or nothing")


def _text(v: Any) -> bool:
    return isinstance(v, str) and bool(v)


def _texts(v: Any) -> bool:
    return isinstance(v, list) and all(map(_text, v))


def _mapping(v: Any) -> bool:
    return isinstance(v, dict) and all(map(_text, v))


def _number(v: Any) -> bool:
    return isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v)


def _penalty(v: Any) -> bool:
    return _number(v) or v == "grid" or (isinstance(v, list) and bool(v) and all(map(_number, v)))


_TEXT = (_text, "a text")
_TEXT_OR_NUMBER = (
    lambda v: _text(v) or (isinstance(v, int) and not isinstance(v, bool)),
    "a name or a whole number",
)
_NAMES = _or_none((_texts, "a list of names"))
_OPTIONS = (_mapping, "names with values")
_FITS: dict[str, tuple[Any, str]] = {
    "dataset": _TEXT, "dataset_options": _OPTIONS, "model": _TEXT, "site": _TEXT, "layers": _TEXT_OR_NUMBER,
    "positions": _TEXT_OR_NUMBER, "prepend_bos": _or_none((lambda v: isinstance(v, bool), "true or false")),
    "estimator": _TEXT, "options": _OPTIONS, "targets": _NAMES,
    "C": _or_none((_penalty, "a number, a list of numbers or grid")),
    "alpha": _or_none((_penalty, "a number, a list of numbers or grid")),
    "cv": _whole(2),
    "groups": _or_none((lambda v: isinstance(v, bool) or _text(v) or _texts(v), "true, false or names of columns")),
    "controls": _or_none(_whole(0)), "permutations": _whole(0), "mdl": (lambda v: isinstance(v, bool), "true or false"),
    "floors": _NAMES, "metrics": _NAMES, "answers": _or_none(_OPTIONS), "seed": _whole(0), "bootstrap": _whole(1),
    "activations": _or_none(_TEXT), "keep": _or_none(_TEXT), "batch_size": _whole(1), "device": _or_none(_TEXT),
    "dtype": _or_none(_TEXT),
}  # fmt: skip
