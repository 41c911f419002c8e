"""Who is let in: every request to the server passes here first, pages and files as well as WebSockets.

1. The `Host` must be a name that the server goes by. A foreign page whose name was made to point at this machine
   (DNS rebinding) is so refused.
2. A request that a page sends must come from the dashboard's own pages: the same host and port in `Origin`, and no
   other site in `Sec-Fetch-Site`, except that links to the dashboard may be followed.
3. Another machine is let in only with the token that `python -m dashboard --host` prints: once in the address, then
   in a cookie. With a token, this machine needs it too. Without one, other machines are refused.

Answers carry headers that keep other pages from framing the dashboard, and the dashboard from fetching from elsewhere.
"""

from __future__ import annotations

import os
import re
import secrets
from base64 import b64encode
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from hashlib import sha256
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

TOKEN = "LENS_TOKEN"
"""The environment variable that carries the token to the server, which other users cannot read there."""

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' blob: {scripts}",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "worker-src 'self' blob:",
        "connect-src 'self' data: blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
"""What pages may load and run; `{scripts}` are the scripts that Streamlit's own page has in it."""
HEADERS = {
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}


class Gate:
    """Middleware around the server's app."""

    def __init__(self, app: App, hosts: Collection[str], token: str | None = None) -> None:
        """Let in what asks for one of `hosts` (names without ports), and has the token if there is one."""
        self._app, self._token = app, token
        self._hosts = frozenset(host.lower() for host in hosts)
        self._headers = {"content-security-policy": POLICY.format(scripts=own_scripts()), **HEADERS}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = _headers(scope)
        why = refused(headers, self._hosts)
        if why is not None:
            await _answer(scope, send, 403, why)
        elif self._token is None:
            if local(scope):
                await self._app(scope, receive, self._shielded(send))
            else:
                await _answer(scope, send, 403, "this dashboard is served to its own machine only")
        elif _same(_cookie(headers, scope), self._token):
            await self._app(scope, receive, self._shielded(send))
        else:
            await self._introduced(scope, send)

    async def _introduced(self, scope: Scope, send: Send) -> None:
        """An address with the right token: keep it in a cookie, and go to the address without it."""
        assert self._token is not None
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = [value for name, value in query if name == "token"]
        if scope["type"] != "http" or scope["method"] != "GET" or not _same("".join(given), self._token):
            await _answer(
                scope, send, 401, "open the address with the token that the dashboard printed when it started"
            )
            return
        rest = urlencode([(name, value) for name, value in query if name != "token"])
        path = "/" + scope["path"].lstrip("/\\")
        cookie = f"{_cookie_name(scope)}={self._token}; Path=/; HttpOnly; SameSite=Lax"
        to = quote(path) + (f"?{rest}" if rest else "")
        await _answer(scope, send, 303, "", {"location": to, "set-cookie": cookie})

    def _shielded(self, send: Send) -> Send:
        """Sends answers with our headers."""

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = [
                    pair
                    for pair in message["headers"]
                    if pair[0].decode("latin-1").lower() not in self._headers
                ]
                own = [(name.encode(), value.encode()) for name, value in self._headers.items()]
                message = {**message, "headers": [*kept, *own]}
            await send(message)

        return sending


def own_scripts() -> str:
    """The hashes of the scripts inside Streamlit's page, which are the only ones inside a page that may run."""
    import streamlit

    text = (Path(streamlit.__file__).parent / "static" / "index.html").read_text(encoding="utf-8")
    found = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    return " ".join(f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'" for script in found)


def refused(headers: dict[str, list[str]], hosts: Collection[str]) -> str | None:
    """Why a request with these headers is not let in; None if it is."""
    asked = headers.get("host", [])
    if len(asked) != 1 or _name(asked[0]) not in hosts:
        return "this host is not one that the dashboard goes by"
    for origin in headers.get("origin", []):
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or parts.netloc.lower() != asked[0].lower():
            return "the request comes from a foreign page"
    site = "".join(headers.get("sec-fetch-site", ["none"]))
    followed = headers.get("sec-fetch-mode") == ["navigate"] and headers.get("sec-fetch-dest") == ["document"]
    if site not in ("same-origin", "none") and not followed:
        return "the request comes from a foreign page"
    return None


def _name(host: str) -> str | None:
    """The name in a `Host` header, without the port."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port  # raises where it is no port
    except ValueError:
        return None
    plain = not (parts.username or parts.password or parts.path or parts.query or parts.fragment)
    return parts.hostname.lower() if plain and parts.hostname and "@" not in host else None


def local(scope: Scope) -> bool:
    """Whether the request comes from this machine."""
    client = scope.get("client")
    try:
        return client is not None and ip_address(client[0]).is_loopback
    except ValueError:
        return False


def new_token() -> str:
    """A token that nobody guesses."""
    return secrets.token_urlsafe(24)


def from_environment() -> dict[str, Any]:
    """What the gate of this process lets in: the server's allowed hosts, and the token if one was given."""
    from streamlit import config

    return {"hosts": config.get_option("server.allowedHosts"), "token": os.environ.get(TOKEN) or None}


def _headers(scope: Scope) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        found.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    return found


def _cookie_name(scope: Scope) -> str:
    """Cookies are shared by all ports of a machine, so the port is in the name."""
    return f"lens_token_{(scope.get('server') or ('', 0))[1]}"


def _cookie(headers: dict[str, list[str]], scope: Scope) -> str:
    try:
        jar = SimpleCookie("; ".join(headers.get("cookie", [])))
    except CookieError:
        return ""
    found = jar.get(_cookie_name(scope))
    return found.value if found is not None else ""


def _same(given: str, token: str) -> bool:
    return secrets.compare_digest(given.encode(), token.encode())


async def _answer(
    scope: Scope, send: Send, status: int, why: str, headers: dict[str, str] | None = None
) -> None:
    """A short answer in plain text; a WebSocket is closed before it opens, which the server tells as 403."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": why})
        return
    body = f"{why}\n".encode()
    told = {
        "content-type": "text/plain; charset=utf-8",
        "content-length": str(len(body)),
        **HEADERS,
        **(headers or {}),
    }
    start = [(name.encode(), value.encode("latin-1")) for name, value in told.items()]
    await send({"type": "http.response.start", "status": status, "headers": start})
    await send({"type": "http.response.body", "body": body})
