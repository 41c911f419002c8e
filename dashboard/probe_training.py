"""The form that trains probes of the model that is looked at, and what becomes of its job."""

from __future__ import annotations

from typing import Any

import streamlit as st

from dashboard import options, pressed, probe_runs, probing, state, work
from dashboard.plain import plain
from dashboard.probing import OWN, REPEATS, Source
from probes.config import Config
from probes.dataset import get_dataset
from probes.estimator import estimators, get_estimator
from probes.reading import probed_sites

SITES = ("resid_post", "resid_mid", "resid_pre", "attn_out", "mlp_out", "z")
POSITIONS = ("last", "mean", "first")
FIRST = "truth"
MOST = 20_000


def training(name: str, model: Any, *, expanded: bool) -> None:
    """Choose data, kind and places, and train in the background."""
    with st.expander("Train probes", icon=":material/model_training:", expanded=expanded):
        source, n = data(model)
        a, b, c, d = st.columns([3, 2, 3, 2], vertical_alignment="bottom")
        kind = a.selectbox(
            "Kind of probe", *kinds(source), key=f"probe_kind_{target_of(source)}",
            help="Those of `probes estimators`: linear ones have a direction that can be steered along",
        )  # fmt: skip
        site = b.selectbox("Site", sites(model), key="probe_site", help="What is read, at every layer")
        places = c.multiselect(
            "Positions", POSITIONS, default=["last"], key="probe_positions", accept_new_options=True,
            help="Which token of each row; each makes a run. A place of the data such as city can be typed, or a "
            "number such as -2",
        )  # fmt: skip
        layers = d.text_input(
            "Layers", "all", key="probe_layers", help="all, or numbers and ranges such as 0-5,11"
        )
        a, b, c, d = st.columns([2, 2, 4, 2], vertical_alignment="bottom")
        folds = a.number_input("Folds", 2, 20, 5, key="probe_folds")
        seed = b.number_input("Seed", 0, 10_000, 0, key="probe_seed")
        with c.container(horizontal=True):
            permuted = st.checkbox("p-value (100 permutations)", key="probe_permuted")
            mdl = st.checkbox(
                "Codelength", key="probe_mdl", help="Bits of an online code: smaller is easier to read"
            )
        if (
            pressed.button(
                "Train", place=d, key="probe_train", type="primary", width="stretch", disabled=source is None
            )
            and source is not None
        ):
            begin(
                source, n, places,
                {
                    "dataset": source.name, "dataset_options": {**dict(source.options), "n": n}, "model": name,
                    "estimator": kind, "site": site, "layers": layers, "cv": int(folds), "seed": int(seed),
                    "permutations": 100 if permuted else 0, "mdl": mdl,
                },
            )  # fmt: skip
        problem = st.session_state.get("probe_problem")
        if problem:
            st.error(plain(problem))
    under_way()


def data(model: Any) -> tuple[Source | None, int]:
    """Which rows, and how many."""
    names = [*probe_runs.menu(), REPEATS, OWN]
    a, b, c = st.columns([3, 2, 5], vertical_alignment="bottom")
    first = FIRST if reads_english(model) and FIRST in names else REPEATS
    name = a.selectbox("Data", names, index=names.index(first), key="probe_data")
    n = int(b.number_input("Rows", 20, MOST, 400, step=100, key="probe_rows"))
    if name == OWN:
        file = c.file_uploader("A table (.csv) with columns text and label, and perhaps group", type=["csv"])
        if file is None:
            return None, n
        try:
            return probing.uploaded(file.name, file.getvalue()), n
        except ValueError as error:
            st.error(plain(str(error)))
            return None, n
    if name == REPEATS:
        c.caption(
            "Has the last word of a text been there before? Made of words that the model's tokenizer has."
        )
        return Source(REPEATS), n
    about, chosen = get_dataset(name), {}
    with c.container(horizontal=True, vertical_alignment="bottom"):
        for option, default in probing.options_of(name).items():
            key = f"probe_option_{name}_{option}"
            if isinstance(default, bool):
                chosen[option] = st.checkbox(option, default, key=key)
            else:
                chosen[option] = st.text_input(option, default, key=key)
        st.caption(plain(about.summary))
    return Source(name, tuple(chosen.items())), n


def reads_english(model: Any) -> bool:
    """Whether the tokenizer takes any text, or only words that it has."""
    try:
        model.to_tokens("The city of Lyon is in France.")
    except ValueError:
        return False
    return True


def target_of(source: Source | None) -> str:
    """What the main target of the rows is."""
    if source is None or source.table is not None or source.name == REPEATS:
        return "classes"
    return get_dataset(source.name).target


def kinds(source: Source | None) -> tuple[list[str], int]:
    """The kinds that read words or texts, and which of them is usual for these rows."""
    names = [name for name in estimators() if get_estimator(name).target != "heads"]
    return names, names.index("ridge" if target_of(source) == "values" else "logistic")


def sites(model: Any) -> list[str]:
    """The sites that this model has at its layers."""
    found = []
    for site in SITES:
        try:
            probed_sites(model, site)
        except ValueError:
            continue  # a model without MLPs, for one
        found.append(site)
    return found


def begin(source: Source, n: int, positions: list[str], settings: dict[str, Any]) -> None:
    """Queue the job, or remember why it cannot be."""
    if source.table is not None or source.name == REPEATS:
        settings["dataset_options"] = {}
    st.session_state["probe_problem"] = None
    try:
        job = probing.start(
            work.runner(), work.shelf(), source, n, Config.of(settings), positions, options.given().runs
        )
    except ValueError as error:
        st.session_state["probe_problem"] = str(error)
    else:
        st.session_state["probe_job"] = job.id


def under_way() -> None:
    """The job of this session; when it is done, what it made is opened."""
    job = work.runner().get(st.session_state.get("probe_job", 0))
    if job is None:
        return
    if job.active:
        work.watch(job.id)
    elif job.state != "done":
        work.ended(job, again=False)
    else:
        st.session_state.pop("probe_job")
        state.put(probe=job.result.runs[0], target=None, layer=None, model=None)
        st.rerun()
