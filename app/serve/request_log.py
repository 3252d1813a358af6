"""A line for each request: what was asked for, how it ended, how long it took. Never what was said."""

from __future__ import annotations

import time
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class RequestLog:
    """ASGI middleware.

    Args:
        app: what it stands before.
        log: takes the lines.
    """

    def __init__(self, app: ASGIApp, log: Callable[[str], None]) -> None:
        self._app = app
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request on, and write its line when it is over."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        begun, status = time.perf_counter(), "closed"

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            elif message["type"] == "websocket.accept":
                status = "live"
            await send(message)

        try:
            await self._app(scope, receive, sent)
        finally:
            what = scope.get("method", "WS")
            self._log(f"{what} {scope['path']} {status} {time.perf_counter() - begun:.2f} s")
