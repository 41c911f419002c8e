"""All heads of a model on one prompt: by layer or ranked by a score, as pictures and as a table."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st
from numpy.typing import NDArray

from circuits.places import head_name, place
from dashboard import head_roles, page, refusing, scene_heads, sidebar, state, survey, work
from dashboard.components.gallery import gallery
from dashboard.figures.head_kinds import KINDS, strongest_kind
from dashboard.figures.montage import gallery_payload
from dashboard.figures.ranking import rank_labels, ranking
from dashboard.head_effects import EFFECTS, HeadEffects, head_effects
from dashboard.head_views import chosen_head, head_attention, surveyed
from dashboard.page import Page
from dashboard.plain import plain
from dashboard.scene import Scene
from dashboard.state import View
from dashboard.subject import Subject
from dashboard.survey import Survey
from lens.nearest import unknown

PAGE = Page(title="Heads", icon=":material/grid_view:", order=2)

ON_PROMPT, ON_REPEATS = "this prompt", "repeated random tokens"
BY_LAYER = "layer"
PAIRS = 8
Columns = dict[str, NDArray[np.floating]]


def show() -> None:
    st.title("Heads")
    st.caption("What every head looks at here. Click one to look closer, or rank them by a score.")
    view, subject = sidebar.show(state.current("heads"))
    if refusing.refused("heads", view, subject) or subject is None:
        return
    if isinstance(subject, Scene):
        return scene_heads.show(view, subject)
    if len(subject.ids) > survey.LONGEST:
        st.error(f"The prompt has {len(subject.ids)} tokens; the pictures show at most {survey.LONGEST}.")
        return
    found = surveyed(subject.model, subject.name, subject.ids)
    if found is None:
        page.next_step("prompt", "See what the model expects after this prompt", view)
        return
    view = check_sort(view)
    view, at = chosen_head(view, subject.model, found)
    asked = head_roles.asked_of(view, subject)
    columns, order = ranked(view, subject, found, asked)
    roles = head_roles.roles(asked)
    role = None if roles is None else head_roles.table(roles, asked)
    chosen = head_roles.only(roles, role)
    if chosen is not None:
        order = of_role(chosen, order, subject.model.cfg.n_heads)
        if view.node is None and order:  # nobody has chosen another
            at = divmod(order[0], subject.model.cfg.n_heads)
    if columns is not None:
        names = head_roles.by_head(roles)
        gallery_and_head(view, subject, found, at, columns, order, names, role)
        table(view, columns, order, at, names, role)
        st.caption(plain(averaged(subject)))
    page.next_step("head", f"Take {head_name(*at)} apart", view, node=head_name(*at))


def effects(subject: Subject, n: int) -> HeadEffects | None:
    """What every head does for the metric on the first `n` pairs, or on the one that is looked at."""
    assert subject.pairs is not None and subject.batch is not None
    pairs = subject.pairs if n == 1 else subject.batch[:n]
    model, metric = subject.model, subject.metric
    return work.result(
        ("head effects", model.revision, subject.name, pairs.digest, metric),
        f"Effects of all heads on {len(pairs)} pair{'s' * (len(pairs) != 1)}",
        lambda progress: head_effects(model, pairs, metric, progress),
        lane=subject.name,
    )


# ---- ranking


def titles() -> list[str]:
    """What heads can be ranked by."""
    return [*(kind.title for kind in KINDS), *(effect.title for effect in EFFECTS)]


def check_sort(view: View) -> View:
    """The view without a score that does not exist."""
    if view.sort is not None and view.sort not in titles():
        return state.refuse(view, "sort", unknown("score of heads", view.sort, titles()))
    return view


def ranked(
    view: View, subject: Subject, found: Survey, asked: head_roles.Asked
) -> tuple[Columns | None, list[int] | None]:
    """The controls; gives all scores by title, and the heads shown in their order (None: all, by layer).

    No scores while those asked for are being computed.
    """
    row = st.container(horizontal=True, vertical_alignment="bottom", gap="medium")
    orders, now = [BY_LAYER, *titles()], view.sort or BY_LAYER
    row.selectbox(
        "Order", orders, index=orders.index(now), width=260,
        **state.shown("rank_by", now, lambda to: state.put(sort=None if to == BY_LAYER else to)),
        format_func=lambda title: "by layer" if title == BY_LAYER else title,
    )  # fmt: skip
    with row:
        measured = st.segmented_control(
            "Attention scores on", [ON_PROMPT, ON_REPEATS], default=ON_PROMPT, key="measured", required=True
        )
        head_roles.button(asked)
    scored: Survey | None = found
    if measured == ON_REPEATS:
        scored = surveyed(subject.model, subject.name, survey.repeated_ids(subject.model))
    if scored is None:
        return None, None
    columns: Columns = {kind.title: scored.scores[..., i] for i, kind in enumerate(KINDS)}
    if np.isnan(scored.scores[..., 2]).all():
        st.caption("This prompt repeats no token, so it says nothing about duplicates and induction.")
    with row.container(width=250):
        with_effects(view, subject, columns)
    if view.sort is None:
        return columns, None
    if view.sort not in columns:
        return (None, None) if subject.pairs is not None else (columns, None)
    values = columns[view.sort]
    return columns, filtered(view.sort, values)


def with_effects(view: View, subject: Subject, columns: Columns) -> None:
    """Add the effects to the scores, where they are asked for and the texts allow."""
    asked = view.sort in {effect.title for effect in EFFECTS}
    if subject.pairs is None or subject.batch is None:
        if asked:
            st.info(
                plain(
                    f"{view.sort} needs a counterfactual prompt and an answer in the sidebar: {subject.why}."
                ),
                icon=":material/info:",
            )
        return
    n = len(subject.batch)
    if not st.toggle(
        "Effects on the metric", value=asked, key=f"effects_{asked}", disabled=asked,
        help="Ablates every head once, exactly, and reads what it writes to the answer; takes a while on large models",
    ):  # fmt: skip
        return
    over = min(view.over or PAIRS, n)
    if n > 1:
        sizes = sorted({1, min(PAIRS, n), n, over})
        st.segmented_control(
            "Pairs", sizes, default=over, required=True, **state.bound("over", over),
            format_func=lambda size: "this pair" if size == 1 else f"{size} pairs",
        )  # fmt: skip
    found = effects(subject, over)
    if found is not None:
        columns.update({effect.title: getattr(found, effect.field) for effect in EFFECTS})


def filtered(title: str, values: NDArray[np.floating]) -> list[int]:
    """Sliders for the least value and the layers; gives the heads that are left, best first."""
    layers = len(values)
    by_size = title in {effect.title for effect in EFFECTS}
    known = np.abs(values[~np.isnan(values)]) if by_size else values[~np.isnan(values)]
    most = float(known.max()) if known.size else 0.0
    if known.size == 0:
        st.caption(plain(f"There is no {title} to rank by on these prompts."))
    left, right = st.columns(2, gap="large")
    if most > 0:
        step = 10.0 ** (math.floor(math.log10(most)) - 1)
        top = math.floor(most / step) * step
        least = left.slider(
            f"{title} at least" + (" (either sign)" if by_size else ""),
            0.0,
            top,
            0.0,
            step,
            key=f"least_{title}",
        )
    else:
        least = 0.0
    span = (0, layers - 1)
    if layers > 1:
        first, last = right.slider("Layers", 0, layers - 1, span, key=f"layers_{layers}")
        span = (int(first), int(last))
    order = ranking(values, by_size=by_size, least=least, layers=span)
    if not order:
        st.caption("No head passes the filter.")
    return order


def of_role(chosen: list[str], order: list[int] | None, heads: int) -> list[int]:
    """The heads of a role, strongest first; in the order of a score where there is one, and if they pass its filter."""
    mine = [(at.layer or 0) * heads + (at.head or 0) for at in map(place, chosen)]
    return mine if order is None else [i for i in order if i in mine]


# ---- pictures


def gallery_and_head(
    view: View,
    subject: Subject,
    found: Survey,
    at: tuple[int, int],
    columns: Columns,
    order: list[int] | None,
    roles: dict[str, str],
    role: str | None,
) -> None:
    layers, heads = found.scores.shape[:2]
    left, right = st.columns([11, 9], gap="medium")
    with left:
        title, switch = st.columns(2, vertical_alignment="center")
        title.subheader(plain(shown_heads(view, order, role)), divider=False)
        hide = switch.toggle(
            "Hide the sink", key="hide_sink",
            help="Leave out attention to the first token, where heads look when they have nothing to do; the rest of "
            "each row is scaled to sum to 1 again",
        )  # fmt: skip
        signed = view.sort in {effect.title for effect in EFFECTS}
        payload = gallery_payload(
            found.without_sink if hide else found.tiles, len(subject.ids), about(found, columns, view.sort, roles),
            title=f"Attention of {layers * heads if order is None else len(order)} heads of {subject.model.name}",
            order=order, labels=labels_of(columns, view.sort, order, heads, signed=signed),
        )  # fmt: skip
        with st.container(height=700 if order is not None and len(order) > 48 else "content", border=False):
            gallery(payload, key="gallery", selected=at, on_pick=lambda node: state.put(node=node))
    with right:
        kind = strongest_kind(found.scores[at])
        parts = [head_name(*at), roles.get(head_name(*at), ""), kind]
        st.subheader(" · ".join(filter(None, parts)), divider=False)
        head_attention(
            subject, at, subject.ids, key="attention", query=view.query, hide_sink=hide,
            on_query=lambda position: state.put(query=position),
        )  # fmt: skip


def shown_heads(view: View, order: list[int] | None, role: str | None) -> str:
    """Which heads the gallery shows."""
    if order is None:
        return "All heads"
    by = "" if view.sort is None else f" by {view.sort}"
    return (
        f"{len(order)} heads{by}"
        if role is None
        else f"{role}: {len(order)} head{'s' * (len(order) != 1)}{by}"
    )


def labels_of(
    columns: Columns, sort: str | None, order: list[int] | None, heads: int, *, signed: bool
) -> list[str] | None:
    """What stands at each square: its head, and the score that the heads are ranked by, if any."""
    if order is None:
        return None
    if sort is None:
        return [head_name(*divmod(i, heads)) for i in order]
    return rank_labels(columns[sort], order, signed=signed)


def about(found: Survey, columns: Columns, sort: str | None, roles: dict[str, str]) -> list[str]:
    """What the gallery says of each head."""
    layers, heads = found.scores.shape[:2]
    lines = []
    for at in np.ndindex(layers, heads):
        ranked_by = f"{sort} {columns[sort][at]:.3f}" if sort in columns and sort is not None else ""
        kind = strongest_kind(found.scores[at])
        scores = ["" if kind and kind in ranked_by else kind, ranked_by]
        lines.append("\n".join(filter(None, [head_name(*at), roles.get(head_name(*at), ""), *scores])))
    return lines


# ---- table


def table(
    view: View,
    columns: Columns,
    order: list[int] | None,
    at: tuple[int, int],
    roles: dict[str, str],
    role: str | None = None,
) -> None:
    """All scores of the heads that the gallery shows, and of the selected one; a row selects its head."""
    heads = next(iter(columns.values())).shape[1]
    mine = at[0] * heads + at[1]
    if order is None:
        first, second = KINDS[2].title, KINDS[0].title
        if np.isnan(columns[first]).all():
            first, second = second, KINDS[3].title
        values = (np.nan_to_num(columns[title], nan=-1.0).ravel() for title in (second, first))
        order = [int(i) for i in np.lexsort([-v for v in values])]
        said = f"most {first} first, then most {second}"
    else:
        said = f"by {view.sort}, largest first" if view.sort is not None else f"{role}, strongest first"
    st.subheader("What kind of head? Scores of each", divider=False)
    place = (
        f"row {order.index(mine) + 1} of {len(order)}"
        if mine in order
        else "below them, left out by the filter"
    )
    st.caption(plain(f"Rows: {said}. {head_name(*at)} is selected: {place}."))
    order = order if mine in order else [*order, mine]
    titles = sorted(columns, key=lambda title: title != view.sort)  # what heads are ranked by stands first
    names = [head_name(*divmod(i, heads)) for i in order]
    frame = pd.DataFrame({title: columns[title].ravel()[order] for title in titles})
    frame.insert(0, "head", names)
    if roles:
        frame.insert(1, "role", [roles.get(name, "") for name in names])
    rows = {head: row for row, head in enumerate(names)}
    selected = head_name(*at)
    key = table_key(rows, list(frame.columns), selected)
    default = [rows[selected]]

    def pick(chosen: list[int]) -> None:
        state.put(node=names[chosen[0]])

    st.dataframe(
        frame, hide_index=True, height=min(388, 35 * (len(frame) + 1) + 3),
        **state.selecting(key, "rows", pick, default), selection_mode="single-row",
        selection_default={"selection": {"rows": default}},
        column_config={"head": st.column_config.TextColumn("head", pinned=True), **formats(columns)},
    )  # fmt: skip


def averaged(subject: Subject) -> str:
    """Over how many positions the scores are means, and so why they need not sum to 1."""
    repeats = st.session_state.get("measured") == ON_REPEATS
    ids = survey.repeated_ids(subject.model) if repeats else subject.ids
    counts = ", ".join(f"{kind.title} {n}" for kind, n in zip(KINDS, survey.n_queries(ids), strict=True))
    return (
        f"Each score is a mean over the positions where it can be asked for ({counts} of {len(ids)}), so a head's "
        "shares of attention are not of the same positions and can sum to more than 1."
    )


def formats(columns: Columns) -> dict[str, Any]:
    """How each score is shown: shares of attention as bars, effects as signed numbers."""
    found: dict[str, Any] = {}
    for kind in KINDS:
        if kind.share:
            found[kind.title] = st.column_config.ProgressColumn(
                kind.title, help=kind.about, min_value=0, max_value=1, format="%.2f"
            )
        else:
            found[kind.title] = st.column_config.NumberColumn(kind.title, help=kind.about, format="%.2f")
    for effect in EFFECTS:
        if effect.title in columns:
            found[effect.title] = st.column_config.NumberColumn(
                effect.title, help=effect.about, format="%+.3f"
            )
    return found


def table_key(rows: dict[str, int], columns: list[str], selected: str) -> str:
    """The table's identity: a new one where its rows or columns change, or where a head was selected elsewhere.

    A table keeps its own selection as long as it is the same table, and would go on showing that one.
    """
    drawn = st.session_state.get("table", ("", 0))
    order = " ".join([*rows, *columns])
    known = st.session_state.get(f"table_{drawn[1]}")
    chosen = known["selection"]["rows"] if known else []
    there = [rows[selected]] if selected in rows else []
    if drawn[0] != order or (chosen and chosen != there):
        drawn = (order, drawn[1] + 1)
        st.session_state["table"] = drawn
    return f"table_{drawn[1]}"


if __name__ == "__main__":
    show()
