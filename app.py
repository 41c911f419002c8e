"""The dashboard: `streamlit run app.py`, or `streamlit run app.py -- --run DIR` to open a saved run.

This file only routes; every file in `dashboard/pages/` is a page. The server imports it for `app`, behind the gate;
every run of a page runs it as a script.
"""

import streamlit as st
from starlette.middleware import Middleware

from dashboard import gate, options, page, pages, quiet, state


def main() -> None:
    st.set_page_config(page_title="Lens", page_icon=page.ICON, layout="wide")
    st.html(page.STYLE)
    found = pages.found()
    shown = st.navigation([page.route(name, entry) for name, entry in found.items()], position="top")
    page.note_stray(found)
    if options.given().run is not None and "page" not in st.session_state and not st.query_params:
        page.open_given_run(shown.url_path)
    page.say_stray(shown.url_path or next(iter(found)))
    shown.run()
    state.told()


if __name__ == "__main__":
    main()
else:
    quiet.keep_quiet()
    app = st.App(__file__, middleware=[Middleware(gate.Gate, **gate.from_environment())])
