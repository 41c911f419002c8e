"""`python -m dashboard [--run DIR] [--runs DIR] [--port N]`: serve the dashboard on this machine."""

from __future__ import annotations

import argparse
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parent
PORT = 8501

SETTINGS: dict[str, Any] = {
    "server.address": "127.0.0.1",
    "server.headless": True,
    "server.allowedHosts": ["localhost", "127.0.0.1"],
    "server.enableCORS": True,
    "server.enableXsrfProtection": True,
    "server.maxUploadSize": 20,
    "server.maxMessageSize": 64,
    "server.fileWatcherType": "none",
    "browser.gatherUsageStats": False,
    "client.toolbarMode": "minimal",
    "client.showErrorDetails": "none",
    "client.showErrorLinks": False,
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
    parser.add_argument("--port", type=int, default=PORT, help=f"port on 127.0.0.1 (default: {PORT})")
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
    if not free(given.port):
        parser.exit(2, f"dashboard: port {given.port} is in use; name another with --port\n")
    print(f"dashboard: http://127.0.0.1:{given.port} (Ctrl-C stops it)", flush=True)
    os.execv(sys.executable, command(given.port, passed))


def free(port: int) -> bool:
    """Whether nobody listens on this port of this machine."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((SETTINGS["server.address"], port))
        except OSError:
            return False
    return True


def command(port: int, passed: Sequence[str] = ()) -> list[str]:
    """The command line that serves the dashboard on `port`; `passed` reaches the app."""
    flags = []
    for name, value in {**SETTINGS, "server.port": port}.items():
        for one in value if isinstance(value, list) else [value]:
            flags += [f"--{name}", str(one).lower() if isinstance(one, bool) else str(one)]
    return [sys.executable, "-m", "streamlit", "run", str(app()), *flags, "--", *passed]


if __name__ == "__main__":
    main()
