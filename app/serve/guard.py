"""Who may ask: a program on this machine, or one that knows the key; no web page of somebody else.

A page on any site can have a browser send requests to this machine (its Origin tells), and by changing what its own
name stands for it can make them look like its own (the Host tells: DNS rebinding).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from .refusals import Refusal

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_OPEN = ("/health",)


class Guard:
    """ASGI middleware.

    Args:
        app: what it stands before.
        key: that must be known; None: none.
        any_host: requests may name this machine by any name. Only with a key.
    """

    def __init__(self, app: ASGIApp, key: str | None, any_host: bool) -> None:
        self._app = app
        self._key = None if key is None else _digest(key)
        self._any_host = any_host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or refuse it."""
        if scope["type"] in ("http", "websocket"):
            try:
                self._check(Headers(scope=scope), scope["path"])
            except Refusal as refusal:
                if scope["type"] == "websocket":
                    await receive()
                    await send({"type": "websocket.close", "code": 1008, "reason": refusal.message[:120]})
                else:
                    await refusal.response(scope["path"])(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check(self, headers: Mapping[str, str], path: str) -> None:
        host = headers.get("host", "")
        if not self._any_host and _name(f"//{host}") not in LOOPBACK:
            raise Refusal("this server answers to localhost only: ask for it by that name", status=403)
        origin = headers.get("origin")
        if origin is not None and (urlsplit(origin).netloc if _name(origin) else None) != host:
            raise Refusal("web pages of other origins are not answered", status=403)
        if self._key is not None and path not in _OPEN and not self._knows_key(headers):
            raise Refusal("the API key is missing or wrong: send it as Authorization: Bearer KEY", status=401)

    def _knows_key(self, headers: Mapping[str, str]) -> bool:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        given = token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        return hmac.compare_digest(_digest(given), self._key or b"")


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="surrogateescape")).digest()


def _name(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        _ = parts.port
        return None if parts.username or parts.path not in ("", "/") else parts.hostname
    except ValueError:
        return None
