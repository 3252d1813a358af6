"""`POST /v1/messages` and `/v1/messages/count_tokens`: an answer in Anthropic's form, whole or as a stream."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from .chat import all_news, first_news, whole_answer
from .chat_request import ChatRequest
from .engine import Engine, Ticket
from .fields import read_body
from .messages_request import read_messages_request
from .refusals import json_response, json_text, refusal_of

if TYPE_CHECKING:
    from gemma4_mlx.generation import Chunk, Generation, ToolCall

_STOP = {"stop": "end_turn", "tool_call": "tool_use", "length": "max_tokens", "loop": "end_turn", "stopped": "end_turn"}


class Messages:
    """The endpoints.

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
        asked = read_messages_request(await read_body(request))
        asked.check_model(self._model, self._strict)
        ticket = self._engine.answer(asked.messages, asked.request)
        if asked.stream:
            await first_news(ticket)
            return StreamingResponse(
                self._stream(ticket, asked), media_type="text/event-stream", headers={"Cache-Control": "no-cache"}
            )
        result = await whole_answer(ticket, request)
        blocks: list[dict[str, Any]] = []
        if result.thought:
            blocks.append({"type": "thinking", "thinking": result.thought, "signature": ""})
        if result.text:
            blocks.append({"type": "text", "text": result.text})
        blocks += [{**_call(call), "input": call.arguments} for call in result.tool_calls]
        return json_response(
            {**self._message(), "content": blocks, **self._ending(result, asked), "usage": _usage(result)}
        )

    async def count(self, request: Request) -> Response:
        """Count a request's tokens. Raises Refusal."""
        asked = read_messages_request(await read_body(request), counting=True)
        _, done = self._engine.job(
            lambda _: self._engine.processor.count_tokens(asked.messages, asked.request.thinking, asked.request.tools),
            is_short=True,
        )
        try:
            return json_response({"input_tokens": await done})
        except Exception as error:
            raise refusal_of(error) from error

    async def _stream(self, ticket: Ticket, asked: ChatRequest) -> AsyncIterator[bytes]:
        prompt = ticket.answer.prompt_tokens if ticket.answer is not None else 0
        start = {**self._message(), "content": [], "stop_reason": None, "stop_sequence": None}
        yield _event("message_start", message={**start, "usage": {"input_tokens": prompt, "output_tokens": 0}})
        number, kind = -1, ""
        async for news in all_news(ticket):
            for chunk in news.chunks:
                if chunk.kind != kind or chunk.tool_call is not None:
                    if number >= 0:
                        yield _event("content_block_stop", index=number)
                    number, kind = number + 1, chunk.kind
                    yield _event("content_block_start", index=number, content_block=_opening(chunk))
                yield _event("content_block_delta", index=number, delta=_delta(chunk))
            if news.error is not None:
                yield _event("error", error=refusal_of(news.error).anthropic_body()["error"])
                return
            if news.result is not None:
                if number >= 0:
                    yield _event("content_block_stop", index=number)
                yield _event("message_delta", delta=self._ending(news.result, asked), usage=_usage(news.result))
                yield _event("message_stop")

    def _message(self) -> dict[str, Any]:
        return {"id": f"msg_{secrets.token_hex(12)}", "type": "message", "role": "assistant", "model": self._model}

    def _ending(self, result: Generation, asked: ChatRequest) -> dict[str, Any]:
        from gemma4_mlx.generation.answers import end_of_turn_ids

        reason, which = _STOP[result.finish_reason], None
        stop = asked.request.stop
        ends = end_of_turn_ids(self._engine.processor)
        if result.finish_reason == "stop" and stop and result.tokens[-1] not in ends:
            reason, which = "stop_sequence", stop[0] if len(stop) == 1 else None
        return {"stop_reason": reason, "stop_sequence": which}


def _usage(result: Generation) -> dict[str, Any]:
    stats = result.stats
    return {
        "input_tokens": stats.prompt_tokens - stats.cached_tokens,
        "cache_read_input_tokens": stats.cached_tokens,
        "cache_creation_input_tokens": 0,
        "output_tokens": stats.generation_tokens,
    }


def _call(call: ToolCall) -> dict[str, Any]:
    return {"type": "tool_use", "id": f"toolu_{secrets.token_hex(12)}", "name": call.name, "input": {}}


def _opening(chunk: Chunk) -> dict[str, Any]:
    if chunk.tool_call is not None:
        return _call(chunk.tool_call)
    if chunk.kind == "thought":
        return {"type": "thinking", "thinking": "", "signature": ""}
    return {"type": "text", "text": ""}


def _delta(chunk: Chunk) -> dict[str, Any]:
    if chunk.tool_call is not None:
        arguments = json.dumps(chunk.tool_call.arguments, ensure_ascii=False)
        return {"type": "input_json_delta", "partial_json": arguments}
    if chunk.kind == "thought":
        return {"type": "thinking_delta", "thinking": chunk.text}
    return {"type": "text_delta", "text": chunk.text}


def _event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {json_text({'type': kind, **fields})}\n\n".encode(errors="replace")
