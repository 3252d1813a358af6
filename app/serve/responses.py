"""`POST /v1/responses`: an answer in OpenAI's newer form, whole or as a stream. No response is kept."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from .chat import all_news, first_news, whole_answer
from .chat_request import ChatRequest
from .engine import Engine, Ticket
from .fields import read_body
from .refusals import json_response, json_text, refusal_of
from .responses_request import read_responses_request

if TYPE_CHECKING:
    from gemma4_mlx.generation import Chunk, Generation

Event = dict[str, Any]


class Responses:
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
        asked = read_responses_request(await read_body(request), self._engine.context_length)
        asked.check_model(self._model, self._strict)
        ticket = self._engine.answer(asked.messages, asked.request)
        if asked.stream:
            await first_news(ticket)
            return StreamingResponse(
                self._stream(ticket, asked), media_type="text/event-stream", headers={"Cache-Control": "no-cache"}
            )
        result = await whole_answer(ticket, request)
        writing = _Writing()
        writing.all_of(result)
        return json_response(self._ended(self._response(asked), writing, result))

    async def _stream(self, ticket: Ticket, asked: ChatRequest) -> AsyncIterator[bytes]:
        response, number = self._response(asked), 0

        def shown(event: Event) -> bytes:
            nonlocal number
            number += 1
            text = json_text({**event, "sequence_number": number - 1})
            return f"event: {event['type']}\ndata: {text}\n\n".encode(errors="replace")

        writing = _Writing()
        yield shown({"type": "response.created", "response": response})
        yield shown({"type": "response.in_progress", "response": response})
        async for news in all_news(ticket):
            for chunk in news.chunks:
                for event in writing.chunk(chunk):
                    yield shown(event)
            if news.error is not None:
                refusal = refusal_of(news.error)
                failed = {"code": "server_error", "message": refusal.message}
                yield shown({"type": "response.failed", "response": {**response, "status": "failed", "error": failed}})
                return
            if news.result is not None:
                for event in writing.close():
                    yield shown(event)
                ended = self._ended(response, writing, news.result)
                yield shown({"type": f"response.{ended['status']}", "response": ended})

    def _response(self, asked: ChatRequest) -> dict[str, Any]:
        return {
            "id": f"resp_{secrets.token_hex(12)}",
            "object": "response",
            "created_at": int(time.time()),
            "status": "in_progress",
            "error": None,
            "incomplete_details": None,
            "instructions": None,
            "model": self._model,
            "output": [],
            "parallel_tool_calls": asked.request.several_calls,
            "previous_response_id": None,
            "store": False,
            "temperature": asked.request.temperature,
            "tool_choice": "required" if asked.request.must_call else "auto",
            "tools": [],
            "top_p": asked.request.top_p,
            "usage": None,
        }

    def _ended(self, response: dict[str, Any], writing: _Writing, result: Generation) -> dict[str, Any]:
        is_whole = result.finish_reason in ("stop", "tool_call")
        stats = result.stats
        return {
            **response,
            "status": "completed" if is_whole else "incomplete",
            "incomplete_details": None if is_whole else {"reason": "max_output_tokens"},
            "output": writing.items,
            "usage": {
                "input_tokens": stats.prompt_tokens,
                "input_tokens_details": {"cached_tokens": stats.cached_tokens},
                "output_tokens": stats.generation_tokens,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": stats.prompt_tokens + stats.generation_tokens,
            },
        }


class _Writing:
    """An answer on its way into items, with the events that tell of each change.

    Attributes:
        items: those that are whole.
    """

    def __init__(self) -> None:
        self.items: list[dict[str, Any]] = []
        self._kind = ""
        self._text = ""
        self._id = ""

    def chunk(self, chunk: Chunk) -> Iterator[Event]:
        """The next chunk."""
        if chunk.tool_call is not None:
            yield from self.call(chunk.tool_call.name, chunk.tool_call.arguments)
        else:
            yield from self.text(chunk.kind, chunk.text)

    def all_of(self, result: Generation) -> None:
        """A whole answer; nobody listens to the events."""
        events: list[Event] = []
        for kind, text in (("thought", result.thought), ("answer", result.text)):
            events += self.text(kind, text) if text else ()
        for call in result.tool_calls:
            events += self.call(call.name, call.arguments)
        events += self.close()

    def text(self, kind: str, text: str) -> Iterator[Event]:
        """The next text of an answer or a thought."""
        if kind != self._kind:
            yield from self.close()
            yield from self._open(kind)
        self._text += text
        event = {"type": f"response.{self._word}.delta", **self._place, "content_index": 0, "delta": text}
        yield {**event, "logprobs": []} if self._kind == "answer" else event

    def call(self, name: str, arguments: dict[str, Any]) -> Iterator[Event]:
        """A call, which comes whole."""
        yield from self.close()
        self._id = f"fc_{secrets.token_hex(12)}"
        call_id = f"call_{secrets.token_hex(12)}"
        item = {"type": "function_call", "id": self._id, "call_id": call_id, "name": name}
        text = json.dumps(arguments, ensure_ascii=False)
        added = {**item, "arguments": "", "status": "in_progress"}
        yield {"type": "response.output_item.added", "output_index": len(self.items), "item": added}
        kind = "response.function_call_arguments"
        yield {"type": f"{kind}.delta", **self._place, "delta": text}
        yield {"type": f"{kind}.done", **self._place, "name": name, "arguments": text}
        yield from self._done({**item, "arguments": text, "status": "completed"})

    def close(self) -> Iterator[Event]:
        """The item that is being written is whole."""
        if not self._kind:
            return
        place = {**self._place, "content_index": 0}
        done = {"type": f"response.{self._word}.done", **place, "text": self._text}
        yield {**done, "logprobs": []} if self._kind == "answer" else done
        yield {"type": "response.content_part.done", **place, "part": self._part}
        yield from self._done(self._item([self._part], "completed"))
        self._kind = self._text = ""

    def _open(self, kind: str) -> Iterator[Event]:
        self._kind, self._text = kind, ""
        self._id = f"{'rs' if kind == 'thought' else 'msg'}_{secrets.token_hex(12)}"
        item = self._item([], "in_progress")
        yield {"type": "response.output_item.added", "output_index": len(self.items), "item": item}
        yield {"type": "response.content_part.added", **self._place, "content_index": 0, "part": self._part}

    def _done(self, item: dict[str, Any]) -> Iterator[Event]:
        yield {"type": "response.output_item.done", "output_index": len(self.items), "item": item}
        self.items.append(item)

    def _item(self, content: list[dict[str, Any]], status: str) -> dict[str, Any]:
        if self._kind == "thought":
            return {"type": "reasoning", "id": self._id, "summary": [], "content": content, "status": status}
        return {"type": "message", "id": self._id, "role": "assistant", "content": content, "status": status}

    @property
    def _part(self) -> dict[str, Any]:
        if self._kind == "thought":
            return {"type": "reasoning_text", "text": self._text}
        return {"type": "output_text", "text": self._text, "annotations": [], "logprobs": []}

    @property
    def _word(self) -> str:
        return "reasoning_text" if self._kind == "thought" else "output_text"

    @property
    def _place(self) -> dict[str, Any]:
        return {"item_id": self._id, "output_index": len(self.items)}
