"""How the dashboard is started, and what it lets in."""

from __future__ import annotations

import socket
import tomllib
from pathlib import Path

import pytest

from dashboard import __main__ as serving
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
