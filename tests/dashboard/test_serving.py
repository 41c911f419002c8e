"""How the dashboard is started, and what it lets in."""

from __future__ import annotations

import inspect
import logging
import socket
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.websockets import WebSocketDisconnected
from streamlit.runtime import app_session

from dashboard import __main__ as serving
from dashboard import quiet
from dashboard.options import parse

ROOT = Path(__file__).parents[2]


def flat(table: dict, prefix: str = "") -> dict:
    found = {}
    for name, value in table.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


def test_both_ways_of_starting_have_the_same_settings():
    assert flat(tomllib.loads((ROOT / ".streamlit/config.toml").read_text())) == serving.SETTINGS


def test_the_settings_keep_others_out():
    settings = serving.SETTINGS
    assert settings["server.address"] == "127.0.0.1"
    assert set(settings["server.allowedHosts"]) == {"localhost", "127.0.0.1"}
    assert settings["server.enableCORS"]
    assert settings["server.enableXsrfProtection"]
    assert settings["browser.gatherUsageStats"] is False
    assert settings["server.maxUploadSize"] <= 50


def test_every_setting_is_one_that_streamlit_has():
    from streamlit import config

    assert not [name for name in serving.SETTINGS if name not in config.get_config_options()]


def test_the_command_names_the_router_and_passes_options_on():
    command = serving.command(8600, ["--run", "a b"])
    assert str(ROOT / "app.py") in command
    assert command[command.index("--") + 1 :] == ["--run", "a b"]
    assert command[command.index("--server.port") + 1] == "8600"
    assert command.count("--server.allowedHosts") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--run", "/nowhere/at/all"], "is not a run folder"), (["--port", "0"], "between 1 and 65535")],
)
def test_bad_arguments_end_with_code_2_and_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        serving.main(arguments)
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert message in said
    assert said.count("\n") == 1


def test_a_port_in_use_is_said(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit) as ended:
            serving.main(["--port", str(port)])
    assert ended.value.code == 2
    assert f"port {port} is in use" in capsys.readouterr().err


def test_options_come_from_the_command_line_then_the_environment():
    environment = {"LENS_RUNS": "/from/env", "LENS_RUN": "/one"}
    assert parse([], {}).runs == Path("runs")
    assert parse([], {}).run is None
    assert parse([], environment).runs == Path("/from/env")
    given = parse(["--runs", "/x", "--run", "/y", "--unknown", "z"], environment)
    assert (given.runs, given.run) == (Path("/x"), Path("/y"))


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    loggers = [logging.getLogger(name) for name in (quiet.SERVER, quiet.SESSION)]
    before = [(logger, list(logger.filters), logger.propagate, logger.level) for logger in loggers]
    for logger in loggers:
        logger.propagate = True
        logger.setLevel(logging.INFO)
    quiet.keep_quiet()
    quiet.keep_quiet()
    with caplog.at_level(logging.INFO):
        yield caplog
    for logger, filters, propagate, level in before:
        logger.filters[:], logger.propagate = filters, propagate
        logger.setLevel(level)


def test_a_closed_tab_is_no_error(log):
    def fails(error: Exception) -> None:
        try:
            raise error
        except Exception:
            logging.getLogger(quiet.SERVER).exception("Exception in ASGI application\n")

    fails(WebSocketDisconnected('Cannot call "send" once a close message has been sent.'))
    assert not log.records
    fails(RuntimeError("something else"))
    logging.getLogger(quiet.SERVER).info("Started server")
    assert [record.levelname for record in log.records] == ["ERROR", "INFO"]


def test_a_bar_that_has_gone_is_no_news(log):
    source = inspect.getsource(app_session)
    assert quiet.GONE in source, "what Streamlit says of it"
    logging.getLogger(app_session.__name__).info(f"{quiet.GONE} - it might have been removed", "1a2b")
    assert not log.records
    logging.getLogger(app_session.__name__).info("A session began: %s", "1a2b")
    assert len(log.records) == 1
