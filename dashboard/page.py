"""What pages share: the protocol of a page file, links that carry the state, the look."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dashboard import options
from dashboard.plain import plain
from dashboard.state import View, put

PAGES = Path(__file__).parent / "pages"
ICON = Path(__file__).parent / "icon.png"  # a file: icons by name would be fetched from elsewhere

WRAPPING = 68  # pixels: only rows of a table higher than 64 wrap texts that are too long for a line

STYLE = """<style>
.stMainBlockContainer { padding: 3.9rem 2.6rem 2.5rem; }
.stMainBlockContainer h1 { font-size: 1.5rem; padding: 0 0 0.2rem; }
.stMainBlockContainer h3 { font-size: 1.1rem; padding: 0.2rem 0; }
.stMainBlockContainer [data-testid="stMetricValue"] { font-size: 1.3rem; }
.stMainBlockContainer [data-testid="stMetricLabel"] * { white-space: normal; overflow: visible; }
.stMainBlockContainer .stPageLink p { font-weight: 600; }
[data-testid="stSidebarHeader"] { height: 2.2rem; padding: 0; margin: 0; }
[data-testid="stSidebarContent"] [data-testid="stVerticalBlock"] { gap: 0.55rem; }
[data-testid="stSidebarContent"] label p { font-size: 0.82rem; }
@media (max-width: 1180px) { [data-testid="stTopNavLink"] > :has([data-testid="stIconMaterial"]) { display: none; } }
[class*="st-key-stop_"] button { min-height: 0; padding: 0 0.3rem; }
[class*="st-key-stop_"] button::before { content: "×"; content: "×" / ""; font-size: 1.2rem; line-height: 1; }
[class*="st-key-stop_"] button > * { position: absolute; width: 1px; height: 1px; overflow: hidden;
  clip-path: inset(50%); }
.st-key-next { border-top: 1px solid rgb(128 128 128 / 30%); padding-top: 0.9rem; margin-top: 0.6rem; }
.st-key-next a { border: 1px solid #1f6feb; border-radius: 8px; padding: 0.3rem 0.9rem; }
.st-key-next a p { font-weight: 600; }
</style>"""


@dataclass(frozen=True)
class Page:
    """One page: title and icon in the menu, and its place there (the first is shown at the bare address)."""

    title: str
    icon: str
    order: int


def route(name: str, page: Page) -> Any:
    """The page as Streamlit's navigation wants it."""
    import streamlit as st

    first = page.order == 0
    url = None if first else name
    return st.Page(PAGES / f"{name}.py", title=page.title, icon=page.icon, default=first, url_path=url)


def link(name: str, label: str, view: View, *, icon: str | None = None, **changes: Any) -> None:
    """A link to page `name` that carries the state, with some of it changed.

    To the page that is open already it is a button: a link would show the other state and leave the address as it was,
    so that the next click brought the old one back.
    """
    import streamlit as st

    if st.session_state.get("page") == name:
        st.button(
            plain(label), key=f"here_{label}", icon=icon, type="tertiary",
            on_click=lambda: put(**asdict(replace(view, **changes))),
        )  # fmt: skip
        return
    st.page_link(PAGES / f"{name}.py", label=plain(label), icon=icon, query_params=view.params(**changes))


def next_step(name: str, label: str, view: View, **changes: Any) -> None:
    """The one obvious next step at the end of a page."""
    import streamlit as st

    with st.container(key="next"):
        link(name, label, view, icon=":material/arrow_forward:", **changes)


def note_stray(known: Collection[str]) -> None:
    """Remember a path in the address that is no page: a session that begins there is shown another page."""
    import streamlit as st

    session = st.session_state
    if "page" not in session and "stray" not in session:
        path = urlsplit(st.context.url or "").path.strip("/")
        session["stray"] = "" if path in known else path[:40]


def say_stray(shown: str) -> None:
    """Say so above the page `shown` instead, until a person does something or goes elsewhere."""
    import streamlit as st

    session = st.session_state
    if session.get("page", shown) != shown:
        session["stray"] = ""
    if session.get("stray"):
        st.warning(plain(f"There is no page {session['stray']!r}: this one is shown instead."))


def open_given_run(shown: str) -> None:
    """Go to the Circuit page of the run that the dashboard was started with."""
    import streamlit as st

    run = options.given().run
    if run is not None and shown == "":
        st.switch_page(PAGES / "circuit.py", query_params=View(run=run.resolve().name).params())
