"""The endpoints, and what stands before them."""

from __future__ import annotations

import time
from collections.abc import Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from .chat import Chat
from .engine import Engine
from .guard import Guard
from .messages import Messages
from .metrics import metrics_text
from .realtime import Realtime
from .refusals import Refusal, json_response
from .request_log import RequestLog
from .responses import Responses
from .transcriptions import Transcriptions


def make_service(
    engine: Engine, model: str, key: str | None, any_host: bool, strict: bool, log: Callable[[str], None]
) -> Starlette:
    """The application.

    Args:
        engine: has loaded the model.
        model: its name.
        key: that clients must know; None: none.
        any_host: requests may name this machine by any name.
        strict: requests for another model are refused.
        log: takes a line for each request.
    """
    started = int(time.time())
    described = {"id": model, "object": "model", "created": started, "owned_by": "gemma4-mlx"}
    described["context_length"] = engine.context_length

    async def models(_: Request) -> Response:
        return json_response({"object": "list", "data": [described]})

    async def one_model(request: Request) -> Response:
        if request.path_params["name"] != model:
            raise Refusal(f"the model here is {model}", status=404, param="model", code="model_not_found")
        return json_response(described)

    async def health(_: Request) -> Response:
        return json_response({"status": "ok"})

    async def metrics(_: Request) -> Response:
        return Response(metrics_text(engine), media_type="text/plain; version=0.0.4")

    chat = Chat(engine, model, strict)

    async def completions(request: Request) -> Response:
        return await chat(request)

    write_down, translate = Transcriptions(engine, None), Transcriptions(engine, "English")

    async def transcriptions(request: Request) -> Response:
        return await write_down(request)

    async def translations(request: Request) -> Response:
        return await translate(request)

    anthropic = Messages(engine, model, strict)

    async def messages(request: Request) -> Response:
        return await anthropic(request)

    newer = Responses(engine, model, strict)

    async def responses(request: Request) -> Response:
        return await newer(request)

    realtime = Realtime(engine, model)

    async def live(socket: WebSocket) -> None:
        await realtime(socket)

    return Starlette(
        routes=[
            Route("/health", health),
            Route("/metrics", metrics),
            Route("/v1/models", models),
            Route("/v1/models/{name:path}", one_model),
            Route("/v1/chat/completions", completions, methods=["POST"]),
            Route("/v1/responses", responses, methods=["POST"]),
            Route("/v1/messages", messages, methods=["POST"]),
            Route("/v1/messages/count_tokens", anthropic.count, methods=["POST"]),
            Route("/v1/audio/transcriptions", transcriptions, methods=["POST"]),
            Route("/v1/audio/translations", translations, methods=["POST"]),
            WebSocketRoute("/v1/realtime", live),
        ],
        middleware=[
            Middleware(RequestLog, log=log),
            Middleware(Guard, key=key, any_host=any_host),
        ],
        exception_handlers={Refusal: _refused, HTTPException: _no_such, Exception: _failed},
    )


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return error.response(request.url.path)


def _no_such(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    said = {404: "there is nothing at", 405: "this method is not for"}.get(error.status_code, "not possible:")
    return Refusal(f"{said} {request.url.path}", status=error.status_code).response(request.url.path)


def _failed(request: Request, error: Exception) -> Response:
    return Refusal("something went wrong here: the server's log has more", status=500).response(request.url.path)
