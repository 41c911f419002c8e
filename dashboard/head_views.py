"""What the pages Heads and Head share: all heads surveyed, the head that is looked at, its attention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from circuits.places import head_name, place
from dashboard import state, survey, work
from dashboard.components.attention import attention
from dashboard.figures.attention import attention_payload, weighted_by, without_sink
from dashboard.figures.head_kinds import TELLING
from dashboard.state import View
from dashboard.subject import Subject
from dashboard.survey import Survey


def surveyed(model: Any, name: str, ids: list[int]) -> Survey | None:
    """All heads on these tokens, computed once per model and tokens."""
    return work.look(
        ("survey", model.revision, name, tuple(ids)),
        f"Attention of all heads on {len(ids)} tokens",
        lambda progress: survey.survey(model, ids, progress),
        lane=name,
    )


def chosen_head(view: View, model: Any, found: Survey) -> tuple[View, tuple[int, int]]:
    """The head of the address, or else the one with the most telling pattern."""
    layers, heads = model.cfg.n_layers, model.cfg.n_heads
    if view.node is not None:
        node = place(view.node)
        if node.kind == "head" and node.layer is not None and node.head is not None:
            if node.layer < layers and node.head < heads:
                return view, (node.layer, node.head)
            why = f"{view.node} is not a head of {model.name}, which has a0.h0 to a{layers - 1}.h{heads - 1}"
            view = state.refuse(view, "node", why)
    telling = np.nan_to_num(found.scores[..., :TELLING], nan=0.0).max(-1)
    layer, head = np.unravel_index(int(telling.argmax()), telling.shape)
    return view, (int(layer), int(head))


def head_attention(
    subject: Subject,
    at: tuple[int, int],
    ids: Sequence[int],
    *,
    key: str,
    query: int | None = None,
    hide_sink: bool = False,
    by_values: bool = False,
    on_query: Callable[[int], None] | None = None,
) -> None:
    """One head's attention over the text of a prompt, drawn as soon as it is computed."""
    pattern = pattern_of(subject, at, ids, by_values=by_values)
    if pattern is None:
        return
    model = subject.model
    title = f"Attention of {head_name(*at)}" + (", weighted by what is written" if by_values else "")
    attention(
        attention_payload(
            without_sink(pattern) if hide_sink else pattern, model.to_str_tokens(list(ids)),
            title=title, causal=model.cfg.stack.causal,
        ),
        key=key, query=query if query is not None and query < len(ids) else None, on_query=on_query,
    )  # fmt: skip


def pattern_of(
    subject: Subject, at: tuple[int, int], ids: Sequence[int], *, by_values: bool = False
) -> NDArray[np.floating] | None:
    """A head's pattern [q, k]; `by_values`: each weight times the size of what the head writes for that key."""
    (layer, head), model = at, subject.model
    patterns = work.look(
        ("patterns", model.revision, subject.name, tuple(ids), layer),
        f"Attention of layer {layer}",
        lambda progress: survey.layer_patterns(model, ids, layer),
        lane=subject.name,
    )
    if patterns is None or not by_values:
        return None if patterns is None else patterns[head]
    sizes = work.look(
        ("value sizes", model.revision, subject.name, tuple(ids), layer),
        f"Values of layer {layer}",
        lambda progress: survey.value_sizes(model, ids, layer),
        lane=subject.name,
    )
    return None if sizes is None else weighted_by(patterns[head], sizes[head])
