"""`python -m dashboard [--run DIR] [--runs DIR] [--port N]`: serve the dashboard on this machine.

`--host ADDRESS` serves it to other machines as well, which then need a token; docs/security.md says what that
protects from.
"""

from __future__ import annotations

import argparse
import errno
import os
import re
import socket
import sys
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from dashboard import gate

PACKAGE = Path(__file__).resolve().parent
PORT = 8501
TOKENS = re.compile(r"[A-Za-z0-9_-]{16,200}")

SETTINGS: dict[str, Any] = {
    "server.address": "127.0.0.1",
    "server.headless": True,
    "server.allowedHosts": ["localhost", "127.0.0.1"],
    "server.enableCORS": True,
    "server.enableXsrfProtection": True,
    "server.maxUploadSize": 20,
    "server.maxMessageSize": 64,
    "server.fileWatcherType": "none",
    "runner.magicEnabled": False,
    "runner.postScriptGC": False,
    "browser.gatherUsageStats": False,
    "client.toolbarMode": "minimal",
    "client.showErrorDetails": "none",
    "client.showErrorLinks": False,
    "global.disableWidgetStateDuplicationWarning": True,
    "theme.light.primaryColor": "#2563eb",
    "theme.dark.primaryColor": "#3b82f6",
}
"""The same as `.streamlit/config.toml`, which Streamlit only finds from the project's folder."""


def app() -> Path:
    """The router: beside this package in a clone, inside it when installed."""
    inside = PACKAGE / "app.py"
    return inside if inside.is_file() else PACKAGE.parent / "app.py"


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m dashboard", description="Browse heads and circuits.")
    parser.add_argument("--run", type=Path, help="a saved run to open")
    parser.add_argument("--runs", type=Path, help="folder of saved runs (default: $LENS_RUNS, or ./runs)")
    parser.add_argument("--port", type=int, default=PORT, help=f"port to listen on (default: {PORT})")
    parser.add_argument(
        "--host", metavar="ADDRESS", default=SETTINGS["server.address"],
        help="address of this machine to listen on (default: 127.0.0.1, which only this machine reaches); with any "
        "other, whoever has the printed token is let in, and nothing is encrypted",
    )  # fmt: skip
    parser.add_argument(
        "--name", action="append", default=[], help="another name that browsers may ask for; may be repeated"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until interrupted. Bad arguments end the program with code 2 and one line."""
    from circuits.store import read_info

    parser = options()
    given = parser.parse_args(arguments)
    if not 1 <= given.port <= 65535:
        parser.exit(2, f"dashboard: --port is {given.port}; it must be between 1 and 65535\n")
    passed = []
    for name, path in (("--run", given.run), ("--runs", given.runs)):
        if path is not None:
            passed += [name, str(path)]
    if given.run is not None:
        try:
            read_info(given.run)
        except ValueError as error:
            parser.exit(2, f"dashboard: {error}\n")
    try:
        shown, token = reached(given.host, given.name, os.environ.get(gate.TOKEN))
        if not free(given.port, given.host):
            raise ValueError(f"port {given.port} is in use; name another with --port")
    except ValueError as error:
        parser.exit(2, f"dashboard: {error}\n")
    environment = {name: value for name, value in os.environ.items() if name != gate.TOKEN}
    address = f"http://{f'[{shown}]' if ':' in shown else shown}:{given.port}"
    if token is None:
        print(f"dashboard: {address} (Ctrl-C stops it)", flush=True)
    else:
        environment[gate.TOKEN] = token
        print(f"dashboard: {address}/?token={token} (Ctrl-C stops it)", flush=True)
        print("dashboard: whoever has this address can use the dashboard; it is sent unencrypted", flush=True)
    os.execve(sys.executable, command(given.port, passed, given.host, given.name), environment)


def reached(host: str, names: Sequence[str], token: str | None) -> tuple[str, str | None]:
    """Under which name browsers reach the address `host`, and the token that they need; None on this machine.

    Raises:
        ValueError: all addresses of the machine, without a name; or a token that is too easily guessed.
    """
    try:
        at = ip_address(host)
    except ValueError:
        at = None
    if host == "localhost" or (at is not None and at.is_loopback):
        return host, None
    if at is not None and at.is_unspecified and not names:
        raise ValueError(f"--host {host} are all addresses; say with --name what browsers will ask for")
    if token is not None and TOKENS.fullmatch(token) is None:
        raise ValueError(f"${gate.TOKEN} must be 16 to 200 letters, digits, - or _")
    return names[0] if names else host, token or gate.new_token()


def free(port: int, host: str = SETTINGS["server.address"]) -> bool:
    """Whether nobody listens on this port of this machine.

    Raises:
        ValueError: the machine has no such address.
    """
    try:
        family, kind, *_, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError:
        raise ValueError(f"--host {host[:80]} is no address of this machine") from None
    with socket.socket(family, kind) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(where)
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise ValueError(f"--host {host[:80]} is no address of this machine") from error
            return False
    return True


def command(
    port: int, passed: Sequence[str] = (), host: str = SETTINGS["server.address"], names: Sequence[str] = ()
) -> list[str]:
    """The command line that serves the dashboard on `port`; `passed` reaches the app."""
    hosts = list(dict.fromkeys([*SETTINGS["server.allowedHosts"], host, *names]))
    settings = {"server.address": host, "server.allowedHosts": hosts, "server.port": port}
    if host != SETTINGS["server.address"]:
        settings["browser.serverAddress"] = hosts[-1]  # or else Streamlit asks a foreign server for it
    flags = []
    for name, value in {**SETTINGS, **settings}.items():
        for one in value if isinstance(value, list) else [value]:
            flags += [f"--{name}", str(one).lower() if isinstance(one, bool) else str(one)]
    return [sys.executable, "-m", "streamlit", "run", str(app()), *flags, "--", *passed]


if __name__ == "__main__":
    main()
