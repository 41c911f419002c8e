"""Weight tables: which tensor of a checkpoint is which of our parameters, readable in both directions.

A family lists rules. A rule between modules covers their `.weight` and `.bias`; a rule between tensors gives
full names. `{l}` stands for a layer and `{e}` for an expert. Where a checkpoint stores axes fused, an einops
pattern takes them apart:

1. Several targets are cut along the axis `n`, which leads the right side of the pattern.
2. An expert index that only the targets have is cut along the axis `e`, next after `n`.
3. Unequal cuts along the first axis are given as `rows`.

Reading is strict: every tensor of the checkpoint meets exactly one rule, every parameter of ours is found
once, and all shapes agree. Tensors that need no rearrangement pass through as they are; the others are views
where strides allow it. Writing is the inverse, bit for bit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from einops import EinopsError, rearrange
from torch import Tensor

from lens.nearest import unknown

Shape = tuple[int, ...]

_OLD_LEAVES = {".gamma": ".weight", ".beta": ".bias"}  # LayerNorm's parameters in the first BERT checkpoints
_OLD_LEAF = re.compile(r"\.(gamma|beta)$")


@dataclass(frozen=True)
class Rule:
    """One tensor (or one module's weight and bias) of a checkpoint, and what it is of ours.

    `targets` is empty for buffers that are not weights (causal masks, rotary frequencies): passed over.
    `weight` and `bias` are einops patterns, checkpoint to ours; None passes the tensor through.
    An `alias` is read (beside the other name, where both hold the same), and written only to a checkpoint
    that is asked to have that name.
    """

    source: str
    targets: tuple[str, ...]
    weight: str | None = None
    bias: str | None = None
    rows: tuple[int, ...] = ()
    axes: tuple[tuple[str, int], ...] = ()
    alias: bool = False

    @property
    def modules(self) -> bool:
        """Whether the rule is between modules, so that `.weight` and `.bias` follow the names."""
        return bool(self.targets) and not self.targets[0].endswith((".weight", ".bias"))

    @property
    def by_expert(self) -> bool:
        """Whether one tensor of the checkpoint holds all experts."""
        return bool(self.targets) and "{e}" in self.targets[0] and "{e}" not in self.source

    def take_apart(self, tensor: Tensor, leaf: str) -> list[Tensor]:
        """The checkpoint's tensor as ours: target by target, within each expert by expert.

        Raises:
            EinopsError, RuntimeError: the tensor does not have the axes that the rule describes.
        """
        if self.rows:
            return list(tensor.split(self.rows, 0))
        pattern, several = self._pattern(leaf), len(self.targets) > 1
        if pattern is None:
            return [tensor]
        sizes = dict(self.axes) | ({"n": len(self.targets)} if several else {})
        parts = rearrange(tensor, pattern, **sizes)
        by_target = list(parts.unbind(0)) if several else [parts]
        return [x for part in by_target for x in part.unbind(0)] if self.by_expert else by_target

    def put_together(self, parts: list[Tensor], leaf: str) -> Tensor:
        """The inverse of `take_apart`."""
        if self.rows:
            return torch.cat(parts, 0)
        pattern, several = self._pattern(leaf), len(self.targets) > 1
        if pattern is None:
            return parts[0]
        left, right = pattern.split("->")
        whole = torch.stack(parts) if several or self.by_expert else parts[0]
        if several and self.by_expert:
            whole = whole.unflatten(0, (len(self.targets), -1))
        return rearrange(whole, f"{right} -> {left}", **dict(self.axes)).contiguous()

    def _pattern(self, leaf: str) -> str | None:
        return self.bias if leaf == "bias" else self.weight


def same(source: str, target: str) -> Rule:
    """The same tensor, or the same weight and bias, under another name."""
    return Rule(source, (target,))


def transposed(source: str, target: str) -> Rule:
    """A module whose weight is stored [in, out] (GPT-2's Conv1D)."""
    return Rule(source, (target,), weight="i o -> o i")


def fused(source: str, *targets: str, weight: str, bias: str | None = None, **axes: int) -> Rule:
    """One tensor that holds several of ours, taken apart by einops patterns; `axes` fixes sizes."""
    return Rule(source, targets, weight=weight, bias=bias, axes=tuple(axes.items()))


def stacked(source: str, targets: Mapping[str, int]) -> Rule:
    """Modules on top of each other along the first axis: target → its number of rows."""
    return Rule(source, tuple(targets), rows=tuple(targets.values()))


def skipped(*sources: str) -> tuple[Rule, ...]:
    """Buffers found in checkpoints that are not weights."""
    return tuple(Rule(source, ()) for source in sources)


def alias(rule: Rule) -> Rule:
    """A rule for a name that other versions of a checkpoint use: read, but not written unless asked for."""
    return replace(rule, alias=True)


@dataclass(frozen=True)
class Match:
    """A checkpoint's tensor and the rule it met.

    `indices` holds the layer and expert; `leaf` is "weight", "bias" or, between whole tensors, "".
    """

    rule: Rule
    indices: dict[str, str]
    leaf: str

    def targets(self, n_experts: int = 1) -> list[str]:
        """Names of our parameters, in the order of `Rule.take_apart`."""
        tail = f".{self.leaf}" if self.rule.modules else ""
        if not self.rule.by_expert:
            return [target.format(**self.indices) + tail for target in self.rule.targets]
        return [t.format(**self.indices, e=e) + tail for t in self.rule.targets for e in range(n_experts)]


@dataclass(frozen=True)
class Table:
    """All rules of one model. `prefix` may be missing from a checkpoint's names (base-model checkpoints)."""

    family: str
    rules: tuple[Rule, ...]
    prefix: str = ""

    def match(self, name: str) -> Match:
        """The one rule that a checkpoint's tensor meets.

        Raises:
            ValueError: it meets none (the message names the nearest) or several.
        """
        plain = _OLD_LEAF.sub(lambda m: _OLD_LEAVES[m[0]], name)
        matches = [(rule, m) for rule, pattern in self._sources if (m := pattern.fullmatch(plain))]
        if not matches:
            missing = unknown("tensor", name, self._examples(name), of=f"the {self.family} family")
            raise ValueError(missing)
        if len(matches) > 1:
            rules = " and ".join(repr(rule.source) for rule, _ in matches)
            raise ValueError(f"checkpoint tensor {name!r} meets more than one rule of {self.family}: {rules}")
        rule, found = matches[0]
        indices = found.groupdict()
        return Match(rule, indices, indices.pop("leaf", None) or "")

    def reads(self, name: str) -> bool:
        """Has a checkpoint's tensor a place here?"""
        plain = _OLD_LEAF.sub(lambda m: _OLD_LEAVES[m[0]], name)
        return any(pattern.fullmatch(plain) for _, pattern in self._sources)

    def read(
        self, tensors: Mapping[str, Tensor], shapes: Mapping[str, Shape], optional: Iterable[str] = ()
    ) -> dict[str, Tensor]:
        """Our parameters from a checkpoint's tensors; `shapes` says what they must be.

        Raises:
            ValueError: a tensor meets no rule, one of ours is missing or given twice, or shapes disagree;
                the message names the tensors of both sides.
        """
        found: dict[str, Tensor] = {}
        origin: dict[str, str] = {}
        for name in tensors:
            match = self.match(name)
            if not match.rule.targets:
                continue
            for ours, part in self._parts(name, match, tensors[name], shapes):
                if ours in found:
                    if match.rule.alias and identical(found[ours], part):
                        continue
                    raise ValueError(f"checkpoint tensors {origin[ours]!r} and {name!r} both give {ours}")
                found[ours], origin[ours] = part, name
        missing = [ours for ours in shapes if ours not in found and ours not in set(optional)]
        if missing:
            more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            source = self._source_of(missing[0])
            raise ValueError(f"the checkpoint has no tensor {source!r} for {missing[0]}{more}")
        return found

    def write(self, state: Mapping[str, Tensor], names: Iterable[str] | None = None) -> dict[str, Tensor]:
        """A checkpoint's tensors from our parameters: the inverse of `read`.

        `names` asks for a checkpoint with exactly those tensors, as some other version would write it; names
        of buffers are left out. By default, the names that `save_pretrained` writes.

        Raises:
            ValueError: a name meets no rule, or needs a parameter that is not in `state`.
        """
        written: dict[str, Tensor] = {}
        for name in self.names(state) if names is None else names:
            match = self.match(name)
            if not match.rule.targets:
                continue
            try:
                written[name] = self._whole(match, state)
            except KeyError as error:
                raise ValueError(f"{name!r} cannot be written: there is no parameter {error}") from None
        return written

    def names(self, state: Iterable[str]) -> list[str]:
        """The names under which our parameters are saved, in the order of the rules.

        Raises:
            ValueError: a parameter has no place in this family's checkpoints.
        """
        parameters = list(state)
        found: dict[str, None] = {}
        placed: set[str] = set()
        for rule in self.rules:
            for target in () if rule.alias else rule.targets:
                pattern = _regex(target, rule.modules)
                for parameter in parameters:
                    if m := pattern.fullmatch(parameter):
                        tail = f".{m['leaf']}" if rule.modules else ""
                        found[rule.source.format(**m.groupdict()) + tail] = None
                        placed.add(parameter)
        if left := [parameter for parameter in parameters if parameter not in placed]:
            raise ValueError(
                f"parameter {left[0]!r} has no place in a checkpoint of the {self.family} family"
            )
        return list(found)

    def _parts(
        self, name: str, match: Match, tensor: Tensor, shapes: Mapping[str, Shape]
    ) -> Iterator[tuple[str, Tensor]]:
        """Our parameters within one tensor, checked against their shapes."""
        n_experts = len(tensor) if match.rule.by_expert and tensor.ndim else 1
        targets = match.targets(n_experts)
        try:
            parts = match.rule.take_apart(tensor, match.leaf)
        except (EinopsError, RuntimeError):
            wanted = ", ".join(f"{ours} {list(shapes[ours])}" for ours in targets if ours in shapes)
            raise ValueError(
                f"checkpoint tensor {name!r} {list(tensor.shape)} does not divide into {wanted or targets[0]}"
            ) from None
        for ours, part in zip(targets, parts, strict=True):
            if not part.is_floating_point():
                raise ValueError(
                    f"checkpoint tensor {name!r} holds {part.dtype}; weights are floating-point numbers"
                )
            if ours not in shapes:
                raise ValueError(f"checkpoint tensor {name!r} gives {ours}, which this model does not have")
            if tuple(part.shape) != tuple(shapes[ours]):
                raise ValueError(
                    f"checkpoint tensor {name!r} {list(tensor.shape)} gives {ours} {list(part.shape)}, "
                    f"but the configuration wants {list(shapes[ours])}"
                )
            yield ours, part

    def _whole(self, match: Match, state: Mapping[str, Tensor]) -> Tensor:
        n_experts = 0
        while match.rule.by_expert and match.targets(n_experts + 1)[n_experts] in state:
            n_experts += 1
        parts = [state[ours] for ours in match.targets(max(n_experts, 1))]
        return match.rule.put_together(parts, match.leaf)

    def _source_of(self, ours: str) -> str:
        """The checkpoint's name for one of our parameters."""
        for rule in self.rules:
            for target in () if rule.alias else rule.targets:
                if m := _regex(target, rule.modules).fullmatch(ours):
                    return rule.source.format(**m.groupdict()) + (f".{m['leaf']}" if rule.modules else "")
        return ours

    def _examples(self, name: str) -> list[str]:
        """Names that the rules would accept, with the indices of `name`, for error messages."""
        numbers = re.findall(r"\d+", name) or ["0"]
        indices = {"l": numbers[0], "e": numbers[-1]}
        return [
            rule.source.format(**indices) + (f".{leaf}" if rule.modules else "")
            for rule in self.rules
            for leaf in (("weight", "bias") if rule.modules else ("",))
        ]

    @cached_property
    def _sources(self) -> list[tuple[Rule, re.Pattern[str]]]:
        return [(rule, _regex(rule.source, rule.modules, self.prefix)) for rule in self.rules]


def identical(a: Tensor, b: Tensor) -> bool:
    """Are these the same numbers? Of tensors that have only shapes, only whether they are one object."""
    if a.is_meta or b.is_meta:
        return a is b
    same_memory = a.data_ptr() == b.data_ptr() and a.stride() == b.stride()
    return a.shape == b.shape and a.dtype == b.dtype and (same_memory or torch.equal(a, b))


def _regex(name: str, module: bool, prefix: str = "") -> re.Pattern[str]:
    """A name with indices as a regular expression with groups `l`, `e` and, after a module, `leaf`."""
    optional = f"(?:{re.escape(prefix)})?" if prefix and name.startswith(prefix) else ""
    body = re.escape(name.removeprefix(prefix) if optional else name)
    body = re.sub(r"\\\{(\w)\\\}", r"(?P<\1>\\d+)", body)
    return re.compile(optional + body + (r"\.(?P<leaf>weight|bias)" if module else ""))
