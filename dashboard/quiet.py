"""What the server's log need not say: a closed tab, and bars of progress that are gone, are no errors."""

from __future__ import annotations

import logging

SERVER, SESSION = "uvicorn.error", "streamlit.runtime.app_session"
"""The loggers that say so: of the server, and of Streamlit's sessions."""

GONE = "The fragment with id %s does not exist anymore"


def told_of_more_than_a_closed_tab(record: logging.LogRecord) -> bool:
    """False for an answer that was meant for a browser which has gone."""
    error = record.exc_info[1] if record.exc_info else None
    kind = type(error)
    return not (kind.__name__ == "WebSocketDisconnected" and kind.__module__.startswith("starlette."))


def told_of_more_than_a_gone_part(record: logging.LogRecord) -> bool:
    """False where a part of a page, such as a bar of progress, was asked for after it had gone."""
    return not str(record.msg).startswith(GONE)


def keep_quiet() -> None:
    """Take both out of the log of this process; all else is logged as ever. Doing so again changes nothing."""
    logging.getLogger(SERVER).addFilter(told_of_more_than_a_closed_tab)
    logging.getLogger(SESSION).addFilter(told_of_more_than_a_gone_part)
