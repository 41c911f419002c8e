"""The roles of all heads on the Heads page: found when a person asks, for the run or the pairs that are looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd
import streamlit as st

from dashboard import inspector, interventions, page, runs, subject, work
from dashboard.opened import Opened
from dashboard.plain import plain
from dashboard.state import View
from dashboard.subject import Subject

MOST_PAIRS = 16
BUTTON = "Name the roles of heads"


@dataclass(frozen=True)
class Asked:
    """What the roles are found of. `flag`: the session's note that a person asked for them."""

    subject: Subject
    opened: Opened | None
    flag: str

    @property
    def n_pairs(self) -> int:
        if self.opened is not None:
            return len(self.opened.run.pairs)
        assert self.subject.batch is not None
        return min(len(self.subject.batch), MOST_PAIRS)


def asked_of(view: View, found: Subject) -> Asked:
    """The run that is looked at, whose roles the Circuit page shows as well, or else the pairs of the sidebar."""
    if view.run is not None and not subject.own(view) and found.title == view.run:
        run = runs.open_run(view.run)
        opened = Opened(view, view.run, run, found.name, found)
        if opened.model() is not None:
            return Asked(found, opened, f"roles_{view.run}")
    digest = None if found.batch is None else found.batch.digest
    return Asked(found, None, f"roles_of_{found.model.revision}_{digest}_{found.metric}")


def refusal(found: Subject) -> str:
    """Why no roles can be told on these texts, "" where they can."""
    if found.batch is None:
        return found.why
    if not bool((found.batch.wrong >= 0).any(-1).all()):
        return "roles need wrong answers beside the right ones"
    return ""


def button(asked: Asked) -> None:
    """Ask for the roles; it stands among the controls of the page until somebody did."""
    if st.session_state.get(asked.flag):
        return
    why = refusal(asked.subject)
    st.button(
        BUTTON, key="name_roles", icon=":material/badge:", disabled=bool(why),
        help=plain(f"Not here: {why}") if why else "Which heads move the answer, hold it back, repeat, look one token "
        "back: classes of all heads by what they attend to, copy and write to the answer",
        on_click=lambda: st.session_state.update({asked.flag: True}),
    )  # fmt: skip


def roles(asked: Asked) -> dict[str, Any] | None:
    """What `circuits.Roles.to_dict` gives, if somebody asked for it; shows how far it is."""
    if not st.session_state.get(asked.flag) or refusal(asked.subject):
        return None
    if asked.opened is not None:
        return inspector.roles(asked.opened)
    of = asked.subject
    assert of.batch is not None
    pairs, model, metric = of.batch[: asked.n_pairs], of.model, of.metric
    return work.result(
        key_of(asked),
        f"Roles of the heads of {of.name} on {len(pairs)} pair{'s' * (len(pairs) != 1)}",
        lambda progress: interventions.roles_on(model, pairs, metric, progress),
        lane=of.name,
    )


def key_of(asked: Asked) -> tuple[Any, ...]:
    """What the roles are remembered by."""
    if asked.opened is not None:
        return inspector.key_of(asked.opened, "roles")
    of = asked.subject
    if of.batch is None:
        return ("roles", None)
    return ("roles", of.model.revision, of.name, of.batch[: asked.n_pairs].digest, of.metric)


def by_head(found: dict[str, Any] | None) -> dict[str, str]:
    """The roles of each head that has any, the most telling first: `mover, induction`."""
    named: dict[str, list[str]] = {}
    for role in [] if found is None else found["roles"]:
        for head in role["heads"]:
            named.setdefault(head, []).append(role["role"])
    return {head: ", ".join(names) for head, names in named.items()}


def table(found: dict[str, Any], asked: Asked) -> str | None:
    """Every role with its heads, strongest first, and what it means; gives the role that a person chose, if any."""
    st.subheader("Roles of the heads", divider=False)
    held = [role for role in found["roles"] if role["heads"]]
    n = asked.n_pairs
    over = f"{n} pair{'s' * (n != 1)} of {asked.subject.title}"
    if not held:
        st.caption(plain(f"None of the {len(found['roles'])} known roles fits a head, on {over}."))
        return None
    rows = [
        f"| {plain(role['role'])} | {plain(', '.join(role['heads']))} | {plain(role['description'])} |"
        for role in held
    ]
    st.markdown("\n".join(["| role | heads, strongest first | what they do |", "|---|---|---|", *rows]))
    empty = [role["role"] for role in found["roles"] if not role["heads"]]
    none = f" No head is: {', '.join(empty)}." if empty else ""
    st.caption(plain(f"By fixed rules on what each head attends to, copies and writes, on {over}.{none}"))
    rules(held)
    return st.pills(
        "Show only heads of the role", [role["role"] for role in held], key=f"only_role_{asked.flag}",
        format_func=plain,
    )  # fmt: skip


def rules(held: list[dict[str, Any]]) -> None:
    """What a head must do to be given each role, and where that comes from."""
    if not all("conditions" in role for role in held):
        return
    with st.expander("The rules"):
        st.dataframe(
            pd.DataFrame(
                [(role["role"], " and ".join(role["conditions"]), role["source"]) for role in held],
                columns=["role", "a head has it if", "source"],
            ),
            hide_index=True, key="rules_table", row_height=page.WRAPPING,
        )  # fmt: skip


def of_head(view: View, found: Subject, head: str) -> str:
    """The roles of one head where they are known already, "" otherwise; it starts no work."""
    asked = asked_of(view, found)
    there = work.known(key_of(asked))
    return by_head(there).get(head, "")


def only(found: dict[str, Any] | None, role: str | None) -> list[str] | None:
    """The heads of this role, strongest first; None where none was chosen."""
    if found is None or role is None:
        return None
    return next((list(one["heads"]) for one in found["roles"] if one["role"] == role), None)
