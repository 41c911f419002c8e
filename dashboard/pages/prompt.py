"""One prompt: its tokens, what the model expects after each, how that builds up by layer, and who writes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from circuits.logit_attribution import LogitAttribution, logit_attribution, neuron_attribution
from circuits.pairs import Pairs
from circuits.places import place
from dashboard import page, refusing, scene_prompt, sidebar, state, work, writers
from dashboard.components.grid import grid
from dashboard.components.prompts import prompts
from dashboard.components.short_table import short_tables
from dashboard.figures.lens import lens_grid, shadings, stream_names
from dashboard.figures.prompts import prompts_payload, side
from dashboard.figures.short_table import short_table
from dashboard.figures.token_table import visible
from dashboard.page import Page
from dashboard.plain import plain
from dashboard.predictions import Predictions, predictions
from dashboard.scene import Scene
from dashboard.state import View
from dashboard.subject import Subject
from lens.logit_lens import LogitLens, Moved, logit_lens, moved

PAGE = Page(title="Prompt", icon=":material/short_text:", order=1)

LONGEST = 1024
LENS_POSITIONS = 160
CLEAN, CORRUPT = "clean", "counterfactual"
NEURONS = 12


def show() -> None:
    st.title("Prompt")
    st.caption("What the model reads, what it expects next, how that builds up, and which parts write it.")
    view, subject = sidebar.show(state.current("prompt"))
    if refusing.refused("prompt", view, subject) or subject is None:
        return
    if isinstance(subject, Scene):
        return scene_prompt.show(view, subject)
    if len(subject.ids) > LONGEST:
        st.error(f"The prompt has {len(subject.ids):,} tokens; this page shows at most {LONGEST:,}.")
        return
    view = check(view, subject)
    if subject.model.cfg.unembed is None:
        st.info(f"{plain(subject.model.name)} predicts no tokens: it has no unembedding.")
    else:
        other = corrupt_ids(subject)
        tokens(view, subject, other)
        lens(view, subject, other)
        attributed(view, subject)
    page.next_step("heads", "See what all heads look at on this prompt", view)


def check(view: View, subject: Subject) -> View:
    """The view without a position or a layer that is not there."""
    n, cfg = len(subject.ids), subject.model.cfg
    if view.query is not None and view.query >= n:
        view = state.refuse(view, "query", f"the prompt has {n} tokens, counted from 0")
    if view.layer is not None and view.layer >= cfg.n_layers:
        view = state.refuse(view, "layer", f"{cfg.name} has {cfg.n_layers} layers, counted from 0")
    return view


def corrupt_ids(subject: Subject) -> list[int] | None:
    """The counterfactual's tokens, where it has as many as the clean prompt."""
    if subject.pairs is not None:
        return subject.pairs.corrupt[0][subject.pairs.mask[0]].tolist()
    if not subject.words.corrupt.strip():
        return None
    try:
        found = subject.model.to_tokens(subject.words.corrupt)[0].tolist()
    except ValueError:
        return None  # the sidebar says what is wrong with it
    return found if len(found) == len(subject.ids) else None


def followed(subject: Subject) -> tuple[list[int], list[int]]:
    """The answers and the wrong answers of the pair."""
    if subject.pairs is None:
        return [], []
    right, wrong = (
        [i for i in ids.flatten().tolist() if i >= 0] for ids in (subject.pairs.answers, subject.pairs.wrong)
    )
    return right, wrong


# ---- tokens and what comes next


def tokens(view: View, subject: Subject, other: list[int] | None) -> None:
    """Both prompts token by token, and what the model expects after the chosen position."""
    sides = [(CLEAN, subject.ids), *([(CORRUPT, other)] if other is not None else [])]
    found = [predicted(subject, ids) for _, ids in sides]
    shown = [(label, ids, one) for (label, ids), one in zip(sides, found, strict=True) if one is not None]
    if len(shown) < len(sides):
        return
    spell = subject.model.to_str_tokens
    differs = [i for i, (a, b) in enumerate(zip(subject.ids, other or subject.ids, strict=True)) if a != b]
    payload = prompts_payload(
        [side(label, spell(ids), one.expected) for label, ids, one in shown], differs,
        title="The clean prompt above its counterfactual" if other else "The prompt",
    )  # fmt: skip
    prompts(payload, key="prompts", position=view.query, on_position=lambda at: state.put(query=at))
    at = len(subject.ids) - 1 if view.query is None else view.query
    st.subheader("What comes next?")
    for column, (label, ids, one) in zip(st.columns(2, gap="medium"), shown, strict=False):
        with column:
            st.caption(
                plain(
                    f"{label}: after “{subject.model.to_string(ids[max(0, at - 3) : at + 1])}” (position {at})"
                )
            )
            next_tokens(subject, one, at, f"next_{label}")


def predicted(subject: Subject, ids: Sequence[int]) -> Predictions | None:
    """The predictions on these tokens, computed once."""
    right, wrong = followed(subject)
    model, wanted = subject.model, [*right, *wrong]
    return work.look(
        ("predictions", model.revision, subject.name, tuple(ids), tuple(wanted)),
        f"What {subject.name} expects after {len(ids)} tokens",
        lambda progress: predictions(model, ids, wanted, progress=progress),
        lane=subject.name,
    )


def next_tokens(subject: Subject, found: Predictions, at: int, key: str) -> None:
    """The most likely tokens, and then the answers that are not among them."""
    right, wrong = followed(subject)
    top = found.top[at].tolist()
    rows = [(i + 1, token, float(p)) for i, (token, p) in enumerate(zip(top, found.probs[at], strict=True))]
    for i, token in enumerate([*right, *wrong]):
        if token not in top:
            rows.append((int(found.followed_ranks[at, i]) + 1, token, float(found.followed_probs[at, i])))
    role = {**dict.fromkeys(wrong, "wrong"), **dict.fromkeys(right, "answer")}
    spelled = subject.model.to_str_tokens([token for _, token, _ in rows])
    columns = {
        "rank": [rank for rank, _, _ in rows],
        "token": [visible(text) for text in spelled],
        "probability": [p for _, _, p in rows],
        "": [role.get(token, "") for _, token, _ in rows],
    }
    table = short_table(
        columns, {"rank": ",", "probability": ".3f"}, title="The likeliest next tokens", bar="probability"
    )
    short_tables(table, key=key)


# ---- logit lens


def lens(view: View, subject: Subject, other: list[int] | None) -> None:
    """What each layer's stream would predict, and what the chosen layer changed."""
    st.subheader("Logit lens: what would the model say after each layer?")
    right, wrong = followed(subject)
    model, wanted = subject.model, [*right, *wrong]
    left, middle = st.columns([1, 2], vertical_alignment="bottom")
    with left:
        which = CLEAN
        if other is not None:
            which = st.segmented_control(
                "Prompt", [CLEAN, CORRUPT], default=CLEAN, key="lens_of", required=True
            )
    ids = subject.ids if which == CLEAN or other is None else other
    found: LogitLens | None = work.look(
        ("logit lens", model.revision, subject.name, tuple(ids), tuple(wanted)),
        f"Logit lens on {len(ids)} tokens",
        lambda progress: logit_lens(model, ids, wanted, progress),
        lane=subject.name,
    )
    if found is None:
        return
    choices = shadings(found, len(right))
    with middle:
        shading = st.segmented_control(
            "Colour", choices, default=choices[0], key=f"lens_by_{len(choices)}", required=True
        )
    start = max(0, len(ids) - LENS_POSITIONS)
    if start:
        st.caption(f"The last {LENS_POSITIONS} of {len(ids):,} positions.")
    payload = lens_grid(
        found, model.to_str_tokens(ids), model.to_str_tokens, shading or choices[0], len(right), start=start
    )
    at = len(ids) - 1 if view.query is None else view.query
    row = model.cfg.n_layers if view.layer is None else view.layer + 1
    picture, panel = st.columns([11, 6], gap="medium")
    with picture:
        grid(
            payload, key="lens", largest=(74, 24), selected=(row, at - start) if at >= start else None,
            on_pick=lambda r, c: state.put(layer=r - 1 if r else None, query=c + start),
        )  # fmt: skip
    with panel:
        change(view, subject, ids, at)


def change(view: View, subject: Subject, ids: Sequence[int], at: int) -> None:
    """The tokens that the chosen layer promotes and suppresses at the chosen position."""
    model, layers = subject.model, subject.model.cfg.n_layers
    before, after = (0, layers) if view.layer is None else (view.layer, view.layer + 1)
    names = stream_names(layers + 1)
    who = "All layers together" if view.layer is None else f"Layer {view.layer}"
    found: tuple[Moved, Moved] | None = work.look(
        ("moved", model.revision, subject.name, tuple(ids), at, before, after),
        f"What {who.lower()} changed",
        lambda progress: moved(model, ids, at, before, after),
        lane=subject.name,
    )
    if found is None:
        return
    token = visible(model.to_str_tokens([ids[at]])[0])
    st.markdown(f"**{who}**, after {plain(f'“{token}”')} (position {at})")
    st.caption(
        f"Ranks from {names[before]} to {names[after]}; change of log-probability in nats. Click a cell for another."
    )
    tables = []
    for title, part in (("promoted", found[0]), ("suppressed", found[1])):
        columns = {
            title: [visible(text) for text in model.to_str_tokens(part.ids.tolist())],
            "rank before": (part.rank_before + 1).tolist(),
            "after": (part.rank_after + 1).tolist(),
            "change": (part.after - part.before).tolist(),
        }
        formats = {"rank before": ",", "after": ",", "change": "+.2f"}
        tables.append(short_table(columns, formats, title=f"Tokens that are {title}"))
    short_tables(*tables, key="lens_moved")


# ---- direct logit attribution


def attributed(view: View, subject: Subject) -> None:
    """Which components write the answer."""
    st.subheader("Which parts write the answer?")
    if subject.pairs is None:
        st.info(
            plain(f"This needs a counterfactual prompt and an answer in the sidebar: {subject.why}."),
            icon=":material/info:",
        )
        return
    pairs = which_pairs(subject)
    model, cfg = subject.model, subject.model.cfg
    found: LogitAttribution | None = work.look(
        ("attribution", model.revision, subject.name, pairs.digest),
        "Direct logit attribution",
        lambda progress: logit_attribution(model, pairs),
        lane=subject.name,
    )
    if found is None:
        return
    shares = found.mean
    against = "wrong answer" if bool((pairs.wrong >= 0).any()) else "average token"
    st.caption(
        f"Each part's own contribution to the answer's logit above the {against}'s, through the final norm; together "
        f"they make {float(found.total.mean()):+.3f} logits. A part may also act through later ones: see Patching."
    )
    right, where = writers.drawn(shares, cfg, selected=view.node)
    with right:
        strongest(shares, where)
    if cfg.d_mlp is not None:
        neurons(view, subject, pairs, shares)


def which_pairs(subject: Subject) -> Pairs:
    """The pair that is looked at, or all of the task's or run's."""
    assert subject.pairs is not None
    if subject.batch is None or len(subject.batch) < 2:
        return subject.pairs
    this, every = "this pair", f"mean over {len(subject.batch)} pairs"
    over = st.segmented_control("Over", [this, every], default=this, key="attribution_over", required=True)
    return subject.batch if over == every else subject.pairs


def strongest(shares: dict[str, float], where: dict[str, Any]) -> None:
    """The components with the largest shares, in words."""
    order = sorted((name for name in shares if name in where), key=lambda name: -abs(shares[name]))
    for word, sign in (("write it", 1), ("write against it", -1)):
        most = [name for name in order if sign * shares[name] > 0][:5]
        if most:
            st.markdown(f"Most {word}: " + ", ".join(f"**{name}** {shares[name]:+.2f}" for name in most))


def neurons(view: View, subject: Subject, pairs: Pairs, shares: dict[str, float]) -> None:
    """The neurons of one MLP: the selected one, or that with the largest share."""
    model, cfg = subject.model, subject.model.cfg
    chosen = place(view.node) if view.node else None
    if chosen is not None and chosen.kind == "mlp" and chosen.name in shares:
        layer = chosen.layer or 0
    else:
        layer = max(range(cfg.n_layers), key=lambda l: abs(shares[f"m{l}"]))
    if cfg.stack.experts is not None:
        st.caption("Neurons are not shown: this model's MLPs are mixtures of experts.")
        return
    found = work.look(
        ("neurons", model.revision, subject.name, pairs.digest, layer),
        f"Neurons of layer {layer}",
        lambda progress: neuron_attribution(model, pairs, layer).mean(0).numpy(),
        lane=subject.name,
    )
    if found is None:
        return
    order = abs(found).argsort()[::-1][:NEURONS]
    st.markdown(
        f"**Neurons of m{layer}** ({shares[f'm{layer}']:+.3f} logits together): the {len(order)} largest shares"
    )
    st.caption("Click an MLP in the grid to see another layer's.")
    columns = {f"n{i}": [float(found[i])] for i in order}
    short_tables(
        short_table(columns, dict.fromkeys(columns, "+.3f"), title=f"Neurons of m{layer}"), key="neurons"
    )


if __name__ == "__main__":
    show()
