"""What stands before every page: whose requests are taken, how large, and what browsers may do.

A page of another site must not reach the console through a browser: by a name that was rebound to
this machine (the Host header), by a form (the Origin header, and a token that only our own pages
hold, see `door`), or by a frame. A browser runs and fetches nothing that is not ours.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from safegen.errors import debugging, upstream

__all__ = ["MAX_BODY", "Guard", "is_loopback"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_BODY = 1 << 20
"""Bytes of one request: a policy of 256 KiB as a form sends it, where each may take three."""

_CSP = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _CSP,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # Not `no-referrer`, under which a browser says `Origin: null` of our own forms.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}
_HOST = re.compile(r"(\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::([0-9]{1,5}))?")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Guard:
    """The outermost layer. host: where the console listens, and one of its names."""

    def __init__(self, app: App, host: str = "127.0.0.1"):
        self._app = app
        self._names = {"localhost", host.lower(), socket.gethostname().lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
        hosts = [v for k, v in scope["headers"] if k == b"host"]
        if len(hosts) != 1 or not self._ours(headers["host"]):
            await _refuse(send, 421, "this console is not called that: use its address")
        elif scope["method"] not in ("GET", "POST"):
            await _refuse(send, 405, "the console takes GET and POST")
        elif scope["method"] == "POST" and not _from_here(headers):
            await _refuse(send, 403, "this request comes from another page than the console's")
        elif (body := await _whole(headers, receive)) is None:
            await _refuse(send, 413, f"a request may have {MAX_BODY:,} bytes")
        else:
            await self._answered(scope, _again(body, receive), _guarded(send))

    async def _answered(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A fault is told by type and location: its text, and a server's log of it, could quote
        what no page may show."""
        begun = False

        async def noted(message: MutableMapping[str, Any]) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except Exception as error:
            if debugging():
                raise
            if not begun:
                await _refuse(send, 500, f"the console failed with {upstream(error)}")

    def _ours(self, host: str) -> bool:
        """Rebinding takes a name, so every address is good, and of names only the console's own."""
        found = _HOST.fullmatch(host)
        if found is None:
            return False
        name = found[1].strip("[]").lower()
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name in self._names
        return True


def _from_here(headers: MutableMapping[str, str]) -> bool:
    """Whether a browser says that a page of the console has sent it, or no browser has."""
    origin, site = headers.get("origin"), headers.get("sec-fetch-site", "same-origin")
    if origin is not None and urlsplit(origin).netloc.lower() != headers["host"].lower():
        return False
    return site in ("same-origin", "none")


async def _whole(headers: MutableMapping[str, str], receive: Receive) -> bytes | None:
    """The body; None where it is too large, which is known before it is read, or while it is."""
    said = headers.get("content-length", "0")
    if not said.isdecimal() or int(said) > MAX_BODY:
        return None
    body: bytes = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > MAX_BODY:
            return None
        if not message.get("more_body"):
            return body


def _again(body: bytes, receive: Receive) -> Receive:
    """Hands the body out once more."""
    told = False

    async def again() -> MutableMapping[str, Any]:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _guarded(send: Send) -> Send:
    """Puts the headers on, but for those that an answer has of its own."""

    async def guarded(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            own = {k.lower() for k, _ in message["headers"]}
            more = [(k.encode(), v.encode()) for k, v in _HEADERS.items() if k.encode() not in own]
            message = {**message, "headers": [*message["headers"], *more]}
        await send(message)

    return guarded


async def _refuse(send: Send, status: int, why: str) -> None:
    send = _guarded(send)
    text = (b"content-type", b"text/plain; charset=utf-8")
    await send({"type": "http.response.start", "status": status, "headers": [text]})
    await send({"type": "http.response.body", "body": f"{why}\n".encode()})
