"""The address of a page carries its state: `?model=smollm2&run=…&node=a9.h2`.

`View` is that state. `read` turns an address into a view and refuses what is not valid; the pages ask
`current` for it and change it with `put`. When a person moves to another page by the menu, which drops the
address, the state of the session's last page is taken over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any
from urllib.parse import urlencode

from circuits.metrics import METRICS
from dashboard.head_groups import node_name
from dashboard.image_sets import UPLOADED
from dashboard.plain import plain
from lens.nearest import unknown

LONGEST = 8000
REMEMBERED = 64
DIRECTIONS = ("noise", "denoise")
"""Of patches: counterfactual values into the clean run, or clean values into the counterfactual run."""


@dataclass(frozen=True)
class View:
    """What is looked at. None: not chosen.

    `prompt`, `corrupt`, `answer` and `wrong` are a person's own texts; without any, `example` says which pair of
    the run or the task. `node`: a node's name, the same on all pages. `edges`: how many edges the graph shows.
    `query`: which position is locked in the attention picture; with `layer` a cell of layers × positions. `site`:
    what is patched, over `over` pairs, in which `direction`; `receiver`: where paths end. `other`: a second run to
    compare with. `group`: a named group of nodes of the run. `probe`: a folder of probes, `target`: what they read.
    `sort`: what heads are ranked by. `beside`: what a head is compared with. `image`, `other_image`: images, by index
    or as uploaded. `second`: the second text of a pair that an encoder reads.
    """

    model: str | None = None
    task: str | None = None
    prompt: str | None = None
    corrupt: str | None = None
    answer: str | None = None
    wrong: str | None = None
    metric: str | None = None
    run: str | None = None
    node: str | None = None
    edges: int | None = None
    example: int | None = None
    query: int | None = None
    layer: int | None = None
    site: str | None = None
    over: int | None = None
    direction: str | None = None
    receiver: str | None = None
    other: str | None = None
    group: str | None = None
    probe: str | None = None
    target: str | None = None
    sort: str | None = None
    beside: str | None = None
    image: str | None = None
    other_image: str | None = None
    second: str | None = None

    def params(self, **changes: Any) -> dict[str, str]:
        """The address of this view, with some fields changed."""
        return {k: str(v) for k, v in asdict(replace(self, **changes)).items() if v is not None}


NAMES = tuple(f.name for f in fields(View))


def _text(name: str, value: str) -> str:
    if not value.strip():
        raise ValueError(f"{name} is empty")
    if len(value) > LONGEST:
        raise ValueError(f"{name} has {len(value)} characters; at most {LONGEST} fit in an address")
    return value


def _prompt(name: str, value: str) -> str:
    return _text(name, value) if value.strip() else value  # what is empty is the page's to refuse


def _metric(name: str, value: str) -> str:
    if value not in METRICS:
        raise ValueError(unknown(name, value, METRICS))
    return value


def _direction(name: str, value: str) -> str:
    if value not in DIRECTIONS:
        raise ValueError(unknown(name, value, DIRECTIONS))
    return value


def _node(name: str, value: str) -> str:
    return node_name(value)


def _image(name: str, value: str) -> str:
    if UPLOADED.fullmatch(value) or (value.isascii() and value.isdigit() and len(value) < 8):
        return value
    raise ValueError(f"{name}={value[:40]!r} is no index of an image")


def _count(least: int) -> Callable[[str, str], int]:
    def read(name: str, value: str) -> int:
        if not (value.isascii() and value.isdigit() and least <= int(value) <= 10_000_000):
            raise ValueError(f"{name}={value[:40]!r} is not a whole number from {least} on")
        return int(value)

    return read


READERS: dict[str, Callable[[str, str], Any]] = {
    "model": _text,
    "task": _text,
    "prompt": _prompt,
    "corrupt": _prompt,
    "answer": _prompt,
    "wrong": _prompt,
    "metric": _metric,
    "run": _text,
    "node": _node,
    "edges": _count(1),
    "example": _count(0),
    "query": _count(0),
    "layer": _count(0),
    "site": _text,
    "over": _count(1),
    "direction": _direction,
    "receiver": _text,
    "other": _text,
    "group": _text,
    "probe": _text,
    "target": _text,
    "sort": _text,
    "beside": _text,
    "image": _image,
    "other_image": _image,
    "second": _prompt,
}


def read(params: Mapping[str, str]) -> tuple[View, dict[str, str]]:
    """The view of an address, and one line per parameter that was refused, by its name."""
    values: dict[str, Any] = {}
    refused: dict[str, str] = {}
    for name, text in params.items():
        if name not in READERS:
            refused[name] = unknown("parameter", name, NAMES)
            continue
        try:
            values[name] = READERS[name](name, text)
        except ValueError as error:
            refused[name] = str(error)
    return View(**values), refused


def current(page: str) -> View:
    """The view of this run of `page`; invalid parameters are taken out of the address with one message."""
    import streamlit as st

    session = st.session_state
    params = dict(st.query_params)
    view, refused = read(params)
    moved = session.get("page") != page
    if moved and not params and "view" in session:
        view = session["view"]
        st.query_params.from_dict(view.params())
    session["page"], session["view"] = page, view
    session["notices"] = [] if moved else session.get("notices", [])
    session["notice_place"] = st.empty()
    for name in refused:
        st.query_params.pop(name, None)
    _notice(*refused.values())
    return view


def put(**changes: Any) -> None:
    """Change the view: the address, and what the next page takes over. For callbacks of widgets.

    When only a fragment is renewed by its timer, nobody has chosen anything: what seems to be a choice then is one of
    before, told late.
    """
    import streamlit as st
    from streamlit.runtime.scriptrunner import get_script_run_ctx

    running = get_script_run_ctx()
    if running is not None and running.fragment_ids_this_run:
        return
    view = replace(st.session_state.get("view", View()), **changes)
    st.session_state["view"] = view
    st.session_state["notices"], st.session_state["stray"] = [], ""
    st.query_params.from_dict(view.params())


def address() -> str:
    """The whole address of the page as it is now."""
    import streamlit as st

    view: View = st.session_state.get("view", View())
    base = (st.context.url or "").partition("?")[0]
    return f"{base}?{urlencode(view.params())}" if view.params() else base


def refuse(view: View, name: str, why: str) -> View:
    """Take `name`, which is well formed but means nothing here, out of the view, and say why."""
    import streamlit as st

    view = replace(view, **{name: None})
    st.session_state["view"] = view
    st.query_params.pop(name, None)
    _notice(why)
    return view


def _notice(*why: str) -> None:
    """Say in one message what of the address was not followed, until the person does something."""
    import streamlit as st

    notices = st.session_state["notices"] = [*st.session_state["notices"], *why]
    if notices:
        text = f"Ignored in the address: {'; '.join(notices)}"
        text += "" if text.endswith(("?", ".")) else "."
        st.session_state["notice_place"].warning(plain(text), icon=":material/link_off:")


def bound(name: str, value: Any, **also: Any) -> dict[str, Any]:
    """`key` and `on_change` of a widget that shows the view's field `name` and changes it.

    `value` is what the widget must show now, and must be given to the widget as its `index`, `value` or `default` as
    well (see `shown`); `also` are other fields that change with it.
    """
    return shown(f"view_{name}", value, lambda to: put(**{**also, name: to}))


def shown(key: str, value: Any, change: Callable[[Any], None]) -> dict[str, Any]:
    """`key` and `on_change` of a widget that must show `value` now; `change` gets what a person chooses instead.

    Streamlit tells the browser of a value that is set here in one run only, and drops what it has not sent yet when
    the next run begins. A browser that so never heard of it shows the widget's default; therefore that is the
    value too, and a value whose run did not end is set again.
    """
    import streamlit as st

    session = st.session_state
    unheard: dict[str, list[Any]] = session.setdefault("unheard", {})  # and what the browser may still show
    if session.get(key) != value:
        unheard[key] = [session[key]] if key in session else []
    if key in unheard:
        session[key] = value

    def changed() -> None:
        if session[key] in unheard.get(key, []):
            return  # the browser says what it still shows, not what a person chose
        change(session[key])

    return {"key": key, "on_change": changed}


def selecting(
    key: str, part: str, pick: Callable[[list[Any]], None], selected: Sequence[Any] = ()
) -> dict[str, Any]:
    """`key` and `on_select` of a table or chart; `pick` gets its selected `part` (rows, cells, points), if any.

    `selected` is what is selected in it from the start. A browser goes on telling what was selected in a table that
    is gone, until it hears that the run without it has ended; where runs follow fast on each other, that may be long
    after. What was told before is no choice, and would take back what a person has chosen since.
    """
    import streamlit as st

    session = st.session_state
    heard: dict[str, list[Any]] = session.setdefault("selections", {})

    def now() -> list[Any]:
        found = session.get(key)
        return list(found["selection"].get(part, [])) if found else []

    if not now():
        heard.pop(key, None)
        heard[key] = list(selected)
        while len(heard) > REMEMBERED:
            del heard[next(iter(heard))]

    def changed() -> None:
        chosen = now()
        if chosen == heard.get(key):
            return
        heard[key] = chosen
        if chosen:
            pick(chosen)

    return {"key": key, "on_select": changed}


def told() -> None:
    """The run has ended: the browser is being told of every value that was set in it."""
    import streamlit as st

    st.session_state.get("unheard", {}).clear()
