"""Who is let in: hosts, pages that requests come from, other machines, tokens; on a real server as well."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dashboard import __main__ as serving
from dashboard import gate
from tests.dashboard.browser import Server, serve

HOSTS = ("localhost", "127.0.0.1")
TOKEN = "a-token-of-some-length"
EVIL = "evil.example"


async def inner(scope: Any, receive: Any, send: Any) -> None:
    """The app behind the gate."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        return
    headers = [(b"content-type", b"text/plain"), (b"X-Frame-Options", b"ALLOWALL")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"inside"})


def ask(
    *, kind: str = "http", path: str = "/", query: str = "", client: str = "127.0.0.1", token: str | None = None,
    method: str = "GET", host: str | None = "127.0.0.1:8501", **headers: str,
) -> tuple[int, dict[str, str], str]:  # fmt: skip
    """Status, headers and text that a request is answered with."""
    given = {
        **({} if host is None else {"host": host}),
        **{k.replace("_", "-"): v for k, v in headers.items()},
    }
    scope = {
        "type": kind, "path": path, "query_string": query.encode(), "client": (client, 5), "method": method,
        "server": ("127.0.0.1", 8501), "headers": [(k.encode(), v.encode()) for k, v in given.items()],
    }  # fmt: skip
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        raise AssertionError("nothing is read")

    async def send(message: Any) -> None:
        sent.append(dict(message))

    asyncio.run(gate.Gate(inner, HOSTS, token)(scope, receive, send))
    if kind == "websocket":
        assert len(sent) == 1
        return (101 if sent[0]["type"] == "websocket.accept" else 403), {}, ""
    told = {k.decode().lower(): v.decode() for k, v in sent[0]["headers"]}
    return sent[0]["status"], told, sent[1]["body"].decode()


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize(
    ("host", "headers", "let_in"),
    [
        ("127.0.0.1:8501", {}, True),
        ("LOCALHOST:8501", {}, True),
        ("localhost", {}, True),
        (EVIL, {}, False),
        (f"{EVIL}:8501", {}, False),
        (f"localhost.{EVIL}", {}, False),
        (f"{EVIL}#localhost", {}, False),
        (f"localhost@{EVIL}", {}, False),
        (f"{EVIL}@localhost", {}, False),
        ("localhost:port", {}, False),
        ("@localhost", {}, False),
        ("[::1", {}, False),
        ("", {}, False),
        (None, {}, False),
        ("localhost:8501", {"origin": "http://localhost:8501"}, True),
        ("localhost:8501", {"origin": "https://localhost:8501"}, True),
        ("localhost:8501", {"origin": f"http://{EVIL}"}, False),
        ("localhost:8501", {"origin": "http://localhost:3000"}, False),
        ("localhost:8501", {"origin": "http://127.0.0.1:8501"}, False),
        ("localhost:8501", {"origin": "null"}, False),
        ("localhost:8501", {"origin": ""}, False),
        ("localhost:8501", {"origin": "file://localhost:8501"}, False),
        ("localhost:8501", {"sec_fetch_site": "same-origin"}, True),
        ("localhost:8501", {"sec_fetch_site": "none"}, True),
        ("localhost:8501", {"sec_fetch_site": "cross-site"}, False),
        ("localhost:8501", {"sec_fetch_site": "same-site"}, False),
    ],
)
def test_hosts_and_origins(kind, host, headers, let_in):
    status, _, text = ask(kind=kind, host=host, **headers)
    assert (status in (200, 101)) == let_in
    assert (text == "inside") == (let_in and kind == "http")
    if not let_in:
        assert status == 403


def test_a_link_elsewhere_may_be_followed_but_no_frame_shows_the_dashboard():
    foreign = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"}
    assert ask(**foreign, sec_fetch_dest="document")[0] == 200
    assert ask(**foreign, sec_fetch_dest="iframe")[0] == 403
    assert ask(sec_fetch_site="cross-site", sec_fetch_mode="no-cors", sec_fetch_dest="image")[0] == 403


def test_answers_carry_our_headers_once():
    _, told, _ = ask()
    assert told["x-frame-options"] == "DENY"
    policy = told["content-security-policy"]
    assert "frame-ancestors 'none'" in policy and "default-src 'self'" in policy
    scripts = re.search(r"script-src ([^;]*)", policy)
    assert scripts is not None
    assert "unsafe" not in scripts[1], (
        "scripts inside a page never run, but for those that are known by their hash"
    )
    assert "http" not in policy


def test_other_machines_need_a_token():
    assert ask(client="192.0.2.7")[0] == 403
    assert ask(client="::ffff:192.0.2.7")[0] == 403
    assert ask(client="")[0] == 403
    assert ask(kind="websocket", client="192.0.2.7")[0] == 403
    assert ask(client="127.0.0.1")[0] == ask(client="::1")[0] == 200


@pytest.mark.parametrize("client", ["127.0.0.1", "192.0.2.7"])
def test_the_token_is_taken_from_the_address_once_and_then_from_a_cookie(client):
    assert ask(token=TOKEN, client=client)[0] == 401
    assert ask(token=TOKEN, client=client, query="token=wrong")[0] == 401
    assert ask(token=TOKEN, client=client, query="token=")[0] == 401
    assert ask(token=TOKEN, client=client, query=f"token={TOKEN}", method="POST")[0] == 401
    assert ask(token=TOKEN, client=client, kind="websocket", query=f"token={TOKEN}")[0] == 403
    status, told, _ = ask(
        token=TOKEN, client=client, path="/heads", query=f"model=a+b&token={TOKEN}&node=a0.h1"
    )
    assert (status, told["location"]) == (303, "/heads?model=a+b&node=a0.h1")
    assert "HttpOnly" in told["set-cookie"] and "SameSite=Lax" in told["set-cookie"]
    cookie = told["set-cookie"].split(";")[0]
    assert ask(token=TOKEN, client=client, cookie=f"x=y; {cookie}")[2] == "inside"
    assert ask(token=TOKEN, client=client, cookie=cookie, kind="websocket")[0] == 101
    assert ask(token=TOKEN, client=client, cookie=cookie, host=EVIL)[0] == 403
    assert ask(token=TOKEN, client=client, cookie=cookie + "x")[0] == 401


@pytest.mark.parametrize("path", [f"//{EVIL}/", f"/\\{EVIL}/", "/a\r\nb: c"])
def test_the_way_back_leads_nowhere_else(path):
    _, told, _ = ask(token=TOKEN, path=path, query=f"token={TOKEN}")
    assert re.match(r"/(?![/\\])", told["location"])
    assert "\r" not in told["location"]


# ---- the command line


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_no_token_on_this_machine(host):
    assert serving.reached(host, [], None) == (host, None)


def test_beyond_this_machine_a_token_is_made_or_taken():
    name, token = serving.reached("192.0.2.7", [], None)
    assert name == "192.0.2.7" and token is not None and serving.TOKENS.fullmatch(token)
    assert serving.reached("192.0.2.7", [], None)[1] != token
    assert serving.reached("0.0.0.0", ["lab.example"], TOKEN) == ("lab.example", TOKEN)
    for host, names, given, why in (
        ("0.0.0.0", [], None, "say with --name"),
        ("192.0.2.7", [], "short", "16 to 200"),
        ("192.0.2.7", [], "x" * 20 + ";", "16 to 200"),
    ):
        with pytest.raises(ValueError, match=why):
            serving.reached(host, names, given)


def test_an_address_of_another_machine_is_refused(capsys):
    with pytest.raises(SystemExit) as ended:
        serving.main(["--host", "198.51.100.1"])
    assert ended.value.code == 2
    assert "is no address of this machine" in capsys.readouterr().err


def test_names_are_hosts_and_nothing_else_changes():
    plain, other = serving.command(8600), serving.command(8600, (), "192.0.2.7", ["lab.example"])
    assert {*other} - {*plain} == {"192.0.2.7", "lab.example", "--browser.serverAddress"}
    assert not any(TOKEN in word for word in other)


# ---- a real server


def raw(url: str, path: str, host: str, *headers: str, method: str = "GET", body: bytes = b"") -> str:
    """The first line of the answer to a request that no browser would send."""
    port = int(url.rsplit(":", 1)[1])
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *headers, f"Content-Length: {len(body)}", "", ""]
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall("\r\n".join(lines).encode() + body)
        return connection.recv(200).decode("latin-1").split("\r\n")[0]


UPGRADE = (
    "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)  # fmt: skip
PATHS = {
    "/": "GET",
    "/heads": "GET",
    "/_stcore/health": "GET",
    "/_stcore/host-config": "GET",
    "/_stcore/metrics": "GET",
    "/_stcore/agent/openapi.json": "GET",
    "/media/0123456789abcdef.zip": "GET",
    "/component/x/index.html": "GET",
    "/_stcore/bidi-components/x": "GET",
    "/static/index.html": "GET",
    "/_stcore/upload_file/session/file": "PUT",
}


@pytest.mark.slow
def test_no_path_of_the_server_answers_foreign_hosts_or_pages(server):
    own = server.url.removeprefix("http://")
    assert " 200 " in raw(server.url, "/", own)
    for path, method in PATHS.items():
        for host in (EVIL, f"{EVIL}:8501", f"localhost.{EVIL}", ""):
            assert " 403 " in raw(server.url, path, host, method=method), (path, host)
        for origin in (f"http://{EVIL}", "http://localhost:3000", "null"):
            assert " 403 " in raw(server.url, path, own, f"Origin: {origin}", method=method), (path, origin)
        assert " 403 " in raw(server.url, path, own, "Sec-Fetch-Site: cross-site", method=method), path
    stream = "/_stcore/stream"
    assert " 101 " in raw(server.url, stream, own, f"Origin: http://{own}", *UPGRADE)
    for host, origin in ((EVIL, f"http://{EVIL}"), (EVIL, f"http://{own}"), (own, f"http://{EVIL}")):
        assert " 403 " in raw(server.url, stream, host, f"Origin: {origin}", *UPGRADE)
    assert " 403 " in raw(server.url, stream, own, "Origin: http://localhost:3000", *UPGRADE)


@pytest.mark.slow
def test_paths_lead_to_no_file_of_the_machine(server):
    own = server.url.removeprefix("http://")
    for path in (
        "/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/static/..%2f..%2fetc/passwd", "//etc/passwd",
        "/media/..%2f..%2f..%2fetc%2fpasswd", "/component/..%2f..%2fetc/passwd", "/static/%00", "/static/..%5c..%5cx",
        "/app/static/../../pyproject.toml",
    ):  # fmt: skip
        status = raw(server.url, path, own)
        assert re.search(r" (400|404|414|431) ", status), (path, status)


@pytest.mark.slow
def test_an_upload_needs_the_sites_own_cookie(server):
    own = server.url.removeprefix("http://")
    assert " 403 " in raw(
        server.url, "/_stcore/upload_file/a/b", own, f"Origin: http://{own}", method="PUT", body=b"x"
    )


@pytest.fixture(scope="module")
def guarded(saved_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A dashboard that needs a token."""
    yield from serve(saved_runs, tmp_path_factory.mktemp("guarded") / "server.log", **{gate.TOKEN: TOKEN})


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.xdist_group("browser")
def test_a_browser_with_the_token_gets_in(guarded, browser):
    from playwright.sync_api import expect

    page = browser.new_context().new_page()
    page.goto(f"{guarded.url}/circuit")
    expect(page.get_by_text("open the address with the token")).to_be_visible()
    page.goto(f"{guarded.url}/circuit?token={TOKEN}")
    expect(page.locator(".node").first).to_be_visible()
    assert TOKEN not in page.evaluate("location.href + document.cookie + document.body.innerText")
    page.context.close()
