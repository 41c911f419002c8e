"""One head: what it looks at, what it looks for and writes in tokens, what is lost without it, where it is active."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd
import streamlit as st
import torch

from circuits.places import head_name, place
from dashboard import ablated, head_roles, page, refusing, scene_head, sidebar, state, subject, survey, work
from dashboard.ablated import Ablated
from dashboard.components.passages import passages
from dashboard.figures.head_kinds import KINDS, strongest_kind
from dashboard.figures.passages import passages_payload
from dashboard.figures.token_table import token_table, visible
from dashboard.head_views import chosen_head, head_attention, surveyed
from dashboard.page import Page
from dashboard.plain import plain
from dashboard.scene import Scene
from dashboard.state import View
from dashboard.subject import Subject
from dashboard.survey import Survey
from lens.head_circuits import EMBEDDING, STREAM, TokenCircuit, ov_circuit, qk_circuit
from lens.head_examples import ATTENTION, MEASURES, WINDOW, Example, examples, windows

PAGE = Page(title="Head", icon=":material/center_focus_strong:", order=3)

NOTHING, CORRUPT = "nothing", "counterfactual"
OV, QK, ABLATE, EXAMPLES = "What it writes", "What it looks for", "Without it", "Where it is active"
MOST_ROWS = 64
SHOWN = 12
READ_HELP = "In this prompt: with all that earlier layers have added. By itself: its embedding"


@dataclass(frozen=True)
class Side:
    """What stands in one column: a head on a prompt."""

    at: tuple[int, int]
    ids: list[int]
    label: str
    key: str


def show() -> None:
    st.title("Head")
    st.caption("One head taken apart: what it looks at, what it writes, and what is lost without it.")
    view, found = sidebar.show(state.current("head"))
    if refusing.refused("head", view, found) or found is None:
        return
    if isinstance(found, Scene):
        return scene_head.show(view, found)
    if len(found.ids) > survey.LONGEST:
        st.error(f"The prompt has {len(found.ids)} tokens; the pictures show at most {survey.LONGEST}.")
        return
    all_heads = surveyed(found.model, found.name, found.ids)
    if all_heads is None:
        page.next_step("heads", "See all heads", view)
        return
    view, at = chosen_head(view, found.model, all_heads)
    view, sides = choose(view, found, at)
    looks(view, found, all_heads, sides)
    section = st.segmented_control(
        "Look at",
        [OV, QK, ABLATE, EXAMPLES],
        default=OV,
        key="section",
        required=True,
        label_visibility="collapsed",
    )
    if section == EXAMPLES:
        active(found, sides[0])
    else:
        draw = {OV: writes, QK: looks_for, ABLATE: without}[section or OV]
        heads = sides if section != ABLATE else list({side.at: side for side in sides}.values())
        for column, side in zip(st.columns(len(heads), gap="medium"), heads, strict=True):
            with column:
                draw(view, found, side)
    head = head_name(*at)
    page.next_step("patching", f"Patch {head} and all others, one by one", view, node=head)


def choose(view: View, found: Subject, at: tuple[int, int]) -> tuple[View, list[Side]]:
    """The head, and what stands beside it."""
    cfg, other = found.model.cfg, None
    heads = [head_name(l, h) for l in range(cfg.n_layers) for h in range(cfg.n_heads)]
    if found.pairs is not None:
        other = found.pairs.corrupt[0][found.pairs.mask[0]].tolist()
    options = [NOTHING, *([CORRUPT] if other is not None else []), *heads]
    if view.beside is not None and view.beside not in options[1:]:
        why = f"{view.beside!r} is no head of {found.model.name} and no counterfactual of this prompt"
        view = state.refuse(view, "beside", why)
    left, right, roles = st.columns([2, 5, 3], vertical_alignment="bottom")
    name, now = head_name(*at), view.beside or NOTHING
    left.selectbox("Head", heads, index=heads.index(name), **state.bound("node", name))
    right.selectbox(
        "Beside it", options, index=options.index(now),
        **state.shown("beside", now, lambda to: state.put(beside=None if to == NOTHING else to)),
        format_func=lambda o: "the same head on the counterfactual" if o == CORRUPT else o,
    )  # fmt: skip
    asked = head_roles.asked_of(view, found)
    with roles:
        head_roles.button(asked)
    head_roles.roles(asked)  # those that are known stand in the titles below
    sides = [Side(at, found.ids, head_name(*at), "main")]
    if now == CORRUPT and other is not None:
        sides[0] = Side(at, found.ids, f"{head_name(*at)} on the clean prompt", "main")
        sides.append(Side(at, other, f"{head_name(*at)} on the counterfactual", "beside"))
    elif now != NOTHING:
        second = place(now)
        sides.append(Side((second.layer or 0, second.head or 0), found.ids, now, "beside"))
    return view, sides


def looks(view: View, found: Subject, all_heads: Survey, sides: list[Side]) -> None:
    """Attention over the text, of one head or two beside each other."""
    a, b, _ = st.columns([3, 4, 3])
    hide = a.toggle("Hide the sink", key="hide_sink", help="Leave out attention to the first token")
    values = b.toggle(
        "Weight by what is written", key="by_values",
        help="Each weight times the size of what the head writes for that key: looking at a key whose value is small "
        "does little",
    )  # fmt: skip
    columns = st.columns(2, gap="medium")
    for column, side in zip(columns, sides, strict=False):
        with column:
            kind = "" if side.ids != found.ids else strongest_kind(all_heads.scores[side.at])
            role = head_roles.of_head(view, found, head_name(*side.at))
            st.subheader(" · ".join(filter(None, [side.label, plain(role), kind])))
            head_attention(
                found, side.at, side.ids, key=f"attention_{side.key}", query=view.query, hide_sink=hide,
                by_values=values, on_query=lambda position: state.put(query=position),
            )  # fmt: skip
    if len(sides) == 1:
        with columns[1]:
            numbers(all_heads, sides[0].at)


def numbers(all_heads: Survey, at: tuple[int, int]) -> None:
    """The head's scores on this prompt, and where it stands among all heads."""
    st.subheader("What kind of head?")
    scores = all_heads.scores.reshape(-1, all_heads.scores.shape[-1])
    rows = []
    for i, kind in enumerate(KINDS):
        value = float(all_heads.scores[at][i])
        if not math.isnan(value):
            rows.append(
                (kind.title, value, f"{int((scores[:, i] > value).sum()) + 1} of {len(scores)}", kind.about)
            )
    st.dataframe(
        pd.DataFrame([row[:3] for row in rows], columns=["score", "value", "rank"]), hide_index=True,
        column_config={"value": st.column_config.NumberColumn("value", format="%.3f")},
    )  # fmt: skip
    st.caption("  \n".join(f"**{plain(title)}**: {plain(about)}" for title, _, _, about in rows))
    st.caption("On this prompt. Choose another head or the counterfactual above to see both side by side.")


# ---- in tokens


def different(side: Side) -> list[int]:
    """The prompt's tokens, each once, in their order."""
    return list(dict.fromkeys(side.ids))[:MOST_ROWS]


def source_of(label: str, key: str, help: str) -> str:
    """Where tokens are read: by themselves, or in this prompt."""
    names = {STREAM: "in this prompt", EMBEDDING: "by itself"}
    return st.segmented_control(
        label,
        [STREAM, EMBEDDING],
        default=STREAM,
        key=key,
        required=True,
        format_func=names.__getitem__,
        help=help,
    )


def circuit_table(
    found: Subject, side: Side, what: str, names: tuple[str, str, str, str], **options: Any
) -> None:
    """A QK or OV circuit as a table; all positions of the prompt, or its different tokens by themselves."""
    model, (layer, head) = found.model, side.at
    ids = side.ids[:MOST_ROWS] if options["source"] == STREAM else different(side)
    work_of = {"OV": ov_circuit, "QK": qk_circuit}[what]
    result: TokenCircuit | None = work.look(
        (what, model.revision, found.name, tuple(ids), side.at, *sorted(options.items())),
        f"{what} circuit of {head_name(layer, head)}",
        lambda progress: work_of(model, layer, head, ids, progress=progress, **options),
        lane=found.name,
    )
    if result is None:
        return
    tokens = model.to_str_tokens(ids)
    labels = (
        [f"{i}\u2002{token}" for i, token in enumerate(tokens)] if options["source"] == STREAM else tokens
    )
    frame = token_table(result, labels, model.to_str_tokens, names=names)
    st.dataframe(
        frame, hide_index=True, height=min(460, page.WRAPPING * len(frame) + 38), row_height=page.WRAPPING,
        key=f"{what}_{side.key}",
        column_config={
            names[0]: st.column_config.TextColumn(names[0], width=130),
            "own rank": st.column_config.NumberColumn("own rank", format="localized", width=70),
            **{name: st.column_config.TextColumn(name, width=390) for name in names[2:]},
        },
    )  # fmt: skip


def writes(view: View, found: Subject, side: Side) -> None:
    """OV: what the head promotes and suppresses where it looks at a token."""
    st.markdown(f"**{plain(side.label)}: where it looks at a token, it promotes and suppresses …**")
    source = source_of(
        "Token read",
        f"ov_{side.key}",
        READ_HELP,
    )
    circuit_table(found, side, "OV", ("token looked at", "own rank", "promotes", "suppresses"), source=source)
    last = f"{found.model.cfg.d_vocab:,}"
    st.caption(
        "Values: what the head adds to a token's logit if it looks at nothing else, less the mean over the "
        "vocabulary and before the final norm divides by the size of the stream. So the answer's value less the wrong "
        "answer's, times the attention and divided by that size, is what it adds to the logit difference. "
        f"Own rank 1: it copies the token; {last}: it suppresses it."
    )


def looks_for(view: View, found: Subject, side: Side) -> None:
    """QK: which tokens of the whole vocabulary a token would look at."""
    st.markdown(f"**{plain(side.label)}: standing on a token, it would look most at …**")
    source = source_of(
        "Query read",
        f"qk_{side.key}",
        READ_HELP,
    )
    distance = st.number_input(
        "Distance", 0, found.model.cfg.n_ctx - 1, 1, key=f"distance_{side.key}", width=140,
        help="How many positions back the key lies; matters where positions are rotary",
    )  # fmt: skip
    circuit_table(
        found,
        side,
        "QK",
        ("token that looks", "own rank", "looks for", "avoids"),
        source=source,
        distance=int(distance),
    )
    st.caption("Scores before the softmax; keys are the embeddings of all tokens of the vocabulary.")


# ---- without it


def without(view: View, found: Subject, side: Side) -> None:
    """The head ablated: metric and next tokens."""
    options = ablated.kinds(found.pairs)
    kind = st.segmented_control(
        f"Replace the output of {head_name(*side.at)} by", options, default=options[0],
        key=f"ablate_{len(options)}_{side.key}", required=True,
        format_func={"counterfactual": "its counterfactual value", "mean": "its mean", "zero": "zero"}.__getitem__,
    )  # fmt: skip
    model, ids, (layer, head), pairs = found.model, found.ids, side.at, found.batch
    at = len(ids) - 1 if view.query is None or view.query >= len(ids) else view.query
    corrupt, asked = None, []
    if found.pairs is not None:
        corrupt = found.pairs.corrupt[0][found.pairs.mask[0]].tolist()
        asked = [
            i
            for i in [*found.pairs.answers.flatten().tolist(), *found.pairs.wrong.flatten().tolist()]
            if i >= 0
        ]
    result: Ablated | None = work.look(
        found.key("ablate", side.at, kind, at, None if pairs is None else pairs.digest, tuple(ids)),
        f"The model without {head_name(layer, head)}",
        lambda progress: ablated.ablate(
            model, ids, layer, head, kind or options[0], position=at, corrupt=corrupt, pairs=pairs,
            metric=found.metric, asked=asked,
        ),
        lane=found.name,
    )  # fmt: skip
    if result is None:
        return
    if pairs is not None:
        mean, change = float(result.metric.mean()), float(result.change.mean())
        cells = st.columns(2)
        over = f"mean over {len(pairs)} pairs" if len(pairs) > 1 else "this pair"
        cells[0].metric(f"{found.metric.replace('_', ' ')}, {over}", f"{mean + change:.3f}", f"{change:+.3f}")
        if len(pairs) > 1:
            same = int((result.change * change > 0).sum())
            cells[1].metric("Pairs that change the same way", f"{same} of {len(pairs)}")
    st.caption(plain(f"What comes after “{model.to_string(ids[max(0, at - 3) : at + 1])}” (position {at})"))
    frame = pd.DataFrame(
        {
            "token": [visible(text) for text in model.to_str_tokens(result.tokens.tolist())],
            "with": result.before.astype(float),
            "without": result.after.astype(float),
            "change": (result.after - result.before).astype(float),
        }
    )
    bar = {"min_value": 0, "max_value": 1, "format": "%.4f", "color": "blue"}
    st.dataframe(
        frame, hide_index=True, key=f"without_{side.key}",
        column_config={
            "with": st.column_config.ProgressColumn("with", **bar),
            "without": st.column_config.ProgressColumn("without", **bar),
            "change": st.column_config.NumberColumn("change", format="%+.4f"),
        },
    )  # fmt: skip


# ---- where it is active


def active(found: Subject, side: Side) -> None:
    """The passages of a text, or of the task's prompts, in which the head is most active."""
    left, right = st.columns([3, 2], gap="medium")
    text = left.text_area(
        "Your text", key="examples_text", height=100, max_chars=200_000,
        placeholder="Paste a text; without one, the clean prompts of the sidebar's pairs are searched",
    )  # fmt: skip
    with right:
        by = st.segmented_control(
            "Most active by", MEASURES, default=ATTENTION, key="examples_by", required=True,
            help="attention to a token other than the first; the size of what the head writes; how much it raises the "
            "logit of the token that really follows",
        )  # fmt: skip
    model, (layer, head) = found.model, side.at
    try:
        cut = windows(model, text, min(WINDOW, model.cfg.n_ctx)) if text.strip() else prompts_of(found)
    except ValueError as error:
        st.error(plain(str(error)))
        return
    best: list[Example] | None = work.result(
        ("examples", model.revision, found.name, side.at, by, text.strip() or tuple(map(tuple, cut))),
        f"{head_name(layer, head)} on {len(cut)} passages",
        lambda progress: examples(model, layer, head, cut, by=by or ATTENTION, k=SHOWN, progress=progress),
        lane=found.name,
    )
    if best is None:
        return
    st.caption(f"The {len(best)} of {len(cut):,} passages in which {head_name(layer, head)} is most active.")

    def pick(number: int) -> None:
        words = subject.text_of(model, torch.tensor(best[number].ids))
        state.put(**{**sidebar.AFRESH, "prompt": words, "query": best[number].query}, run=None)

    payload = passages_payload(
        best, model.to_str_tokens, title=f"Where {head_name(layer, head)} is active", unit=by
    )
    passages(payload, key="passages", on_pick=pick)


def prompts_of(found: Subject) -> list[list[int]]:
    """The clean prompts that are at hand."""
    if found.batch is None:
        return [found.ids]
    rows = zip(found.batch.clean, found.batch.mask, strict=True)
    return [ids[real].tolist() for ids, real in rows]


if __name__ == "__main__":
    show()
