"""`POST /v1/chat/completions`: an answer in OpenAI's form, whole or as a stream."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from .chat_request import ChatRequest, read_chat_request
from .engine import Engine, News, Ticket
from .fields import read_body
from .refusals import json_response, json_text, refusal_of

if TYPE_CHECKING:
    from gemma4_mlx.generation import Generation, ToolCall

_FINISH = {"stop": "stop", "tool_call": "tool_calls", "length": "length", "loop": "length", "stopped": "length"}


class Chat:
    """The endpoint.

    Args:
        engine: answers.
        model: the name of the model in answers.
        strict: requests for another one are refused.
    """

    def __init__(self, engine: Engine, model: str, strict: bool) -> None:
        self._engine = engine
        self._model = model
        self._strict = strict

    async def __call__(self, request: Request) -> Response:
        """Answer a request. Raises Refusal."""
        asked = read_chat_request(await read_body(request), self._engine.context_length)
        asked.check_model(self._model, self._strict)
        ticket = self._engine.answer(asked.messages, asked.request)
        if asked.stream:
            await first_news(ticket)
            return StreamingResponse(
                self._stream(ticket, asked), media_type="text/event-stream", headers={"Cache-Control": "no-cache"}
            )
        return json_response(self._whole(await whole_answer(ticket, request)))

    def _whole(self, result: Generation) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": result.text, "refusal": None}
        if result.thought:
            message["reasoning_content"] = result.thought
        if result.tool_calls:
            message["content"] = result.text or None
            message["tool_calls"] = [_call(call) for call in result.tool_calls]
        finish = _FINISH[result.finish_reason]
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
        return {**self._head("chat.completion"), "choices": [choice], "usage": usage(result)}

    async def _stream(self, ticket: Ticket, asked: ChatRequest) -> AsyncIterator[bytes]:
        head = self._head("chat.completion.chunk")

        def event(delta: dict[str, Any], finish: str | None = None) -> bytes:
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
            return server_event({**head, "choices": [choice], **({"usage": None} if asked.include_usage else {})})

        calls = 0
        yield event({"role": "assistant", "content": ""})
        async for news in all_news(ticket):
            for chunk in news.chunks:
                if chunk.tool_call is not None:
                    yield event({"tool_calls": [{"index": calls, **_call(chunk.tool_call)}]})
                    calls += 1
                else:
                    yield event({"reasoning_content" if chunk.kind == "thought" else "content": chunk.text})
            if news.error is not None:
                yield server_event(refusal_of(news.error).body())
                return
            if news.result is not None:
                yield event({}, _FINISH[news.result.finish_reason])
                if asked.include_usage:
                    yield server_event({**head, "choices": [], "usage": usage(news.result)})
        yield b"data: [DONE]\n\n"

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "object": kind,
            "created": int(time.time()),
            "model": self._model,
            "system_fingerprint": None,
        }


def usage(result: Generation) -> dict[str, Any]:
    """How many tokens it was."""
    stats = result.stats
    return {
        "prompt_tokens": stats.prompt_tokens,
        "completion_tokens": stats.generation_tokens,
        "total_tokens": stats.prompt_tokens + stats.generation_tokens,
        "prompt_tokens_details": {"cached_tokens": stats.cached_tokens},
    }


def server_event(value: dict[str, Any]) -> bytes:
    """An event of a stream."""
    return f"data: {json_text(value)}\n\n".encode(errors="replace")


def _call(call: ToolCall) -> dict[str, Any]:
    arguments = json.dumps(call.arguments, ensure_ascii=False)
    return {
        "id": f"call_{secrets.token_hex(12)}",
        "type": "function",
        "function": {"name": call.name, "arguments": arguments},
    }


async def first_news(ticket: Ticket) -> None:
    """Wait until a prompt has been found good. Raises Refusal."""
    try:
        news = await ticket.news.get()
    except BaseException:
        ticket.stop()
        raise
    if news.error is not None:
        raise refusal_of(news.error) from news.error


async def all_news(ticket: Ticket) -> AsyncIterator[News]:
    """News to the last. Who stops listening does not want the answer."""
    try:
        while True:
            news = await ticket.news.get()
            yield news
            if news.result is not None or news.error is not None:
                return
    finally:
        ticket.stop()


async def whole_answer(ticket: Ticket, request: Request) -> Generation:
    """An answer when it is over; given up when the client goes away. Raises Refusal."""
    watching = asyncio.create_task(_stop_when_gone(ticket, request))
    try:
        await first_news(ticket)
        async for news in all_news(ticket):
            if news.error is not None:
                raise refusal_of(news.error) from news.error
            if news.result is not None:
                return news.result
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
    raise AssertionError("the last news has a result or an error")


async def _stop_when_gone(ticket: Ticket, request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    ticket.stop()
