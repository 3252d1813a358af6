"""The body of `/v1/chat/completions` → messages and settings, as the library takes them.

Every message is made anew from what is known, so that nothing of a request reaches the library unseen: it opens paths
and addresses for who calls it from Python.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .fields import Fields
from .media import MOST_MEDIA, data_url, decoded
from .refusals import Refusal

if TYPE_CHECKING:
    from gemma4_mlx.generation.answers import Request

MOST_TOOLS = 128
MOST_SCHEMA_BYTES = 256 * 2**10
MOST_STOPS = 16
_ROLES = ("system", "developer", "user", "assistant", "tool")
EFFORTS = {"none": False, "minimal": False, "low": True, "medium": True, "high": True, "xhigh": True, "max": True}
# What clients send and what changes nothing about an answer here.
_IGNORED = (
    *("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"),
    *("verbosity", "moderation"),
)


@dataclass(frozen=True)
class ChatRequest:
    """What a client asks for.

    Attributes:
        messages: of the conversation.
        request: how it is to be answered.
        stream: piece by piece.
        include_usage: the stream's end tells how many tokens it was.
        model: by which name the model was asked for; None: by none.
    """

    messages: list[dict[str, Any]]
    request: Request
    stream: bool
    include_usage: bool
    model: str | None

    def check_model(self, model: str, strict: bool) -> None:
        """Raise Refusal if another model than `model` was asked for, and that matters."""
        if strict and self.model not in (None, model):
            raise Refusal(f"the model here is {model}", status=404, param="model", code="model_not_found")


def read_chat_request(body: Fields, most_tokens: int) -> ChatRequest:
    """Read a body.

    Args:
        body: as it came.
        most_tokens: how long an answer may be where the client says nothing.

    Raises:
        Refusal: it names the field that is wrong.
    """
    from gemma4_mlx.generation.answers import Request

    model = body.take("model", str)
    messages = read_messages(body)
    thinking = _thinking(body)
    tools, must_call = _tools(body)
    several = body.take("parallel_tool_calls", bool)
    schema = _response_format(body)
    stop = _stop(body)
    if schema is not None and tools:
        body.refuse("response_format", "a JSON answer has no room for tools: send one of the two")
    if schema is not None and stop:
        body.refuse("stop", "a JSON answer has no room for stop strings: leave them out")
    request = Request(
        max_tokens=_most_tokens(body) or most_tokens,
        temperature=body.number("temperature", 0, 2),
        top_p=body.number("top_p", 0, 1) or None,
        top_k=body.whole("top_k", 0),
        seed=body.whole("seed", -(2**63)),
        thinking=thinking,
        tools=tools or None,
        schema=schema,
        stop=stop,
        must_call=must_call,
        several_calls=several is not False,
    )
    stream = bool(body.take("stream", bool))
    options = body.inner("stream_options")
    include_usage = False
    if options is not None:
        include_usage = bool(options.take("include_usage", bool))
        options.ignore("include_obfuscation")
        options.end()
    body.only("n", 1)
    body.only("logprobs", False)
    body.only("top_logprobs", 0)
    body.only("modalities", ["text"])
    for penalty in ("frequency_penalty", "presence_penalty"):
        body.only(penalty, 0)
    body.only("logit_bias", {})
    body.ignore(*_IGNORED)
    body.end()
    return ChatRequest(messages, request, stream, include_usage, model)


def _most_tokens(body: Fields) -> int | None:
    newer, older = body.whole("max_completion_tokens", 1), body.whole("max_tokens", 1)
    return newer or older


def _thinking(body: Fields) -> bool:
    effort = body.choice("reasoning_effort", EFFORTS)
    options = body.inner("chat_template_kwargs")
    enabled = None
    if options is not None:
        enabled = options.take("enable_thinking", bool)
        options.end()
    return bool(enabled) if enabled is not None else EFFORTS[effort or "none"]


def _stop(body: Fields) -> list[str]:
    stop = body.take("stop", str, list)
    stop = [stop] if isinstance(stop, str) else stop or []
    if not all(isinstance(text, str) and text for text in stop):
        body.refuse("stop", "must be texts, none of them empty")
    if len(stop) > MOST_STOPS or sum(map(len, stop)) > 10_000:
        body.refuse("stop", f"at most {MOST_STOPS} short texts")
    return stop


def _response_format(body: Fields) -> dict[str, Any] | None:
    form = body.inner("response_format")
    if form is None:
        return None
    kind = form.choice("type", ("text", "json_object", "json_schema"))
    schema = None
    if kind == "json_object":
        schema = {"type": "object"}
    elif kind == "json_schema":
        described = form.inner("json_schema", needed=True)
        assert described is not None
        schema = described.take("schema", dict, needed=True)
        check_schema(described, "schema", schema)
        described.ignore("name", "strict", "description")
        described.end()
    form.end()
    return schema


def check_schema(fields: Fields, field: str, schema: dict[str, Any]) -> None:
    """Raise Refusal for a schema that is too large."""
    if len(json.dumps(schema)) > MOST_SCHEMA_BYTES:
        fields.refuse(field, f"the schema is larger than {MOST_SCHEMA_BYTES >> 10} KiB")


def check_tool_name(fields: Fields, name: str) -> None:
    """Raise Refusal for a name that the notation of calls could not tell from what is round it."""
    if not name.isprintable() or not 0 < len(name) <= 128 or any(c in " {}<>|\"'" for c in name):
        fields.refuse("name", "must be up to 128 letters, digits, _ or -")


def _tools(body: Fields) -> tuple[list[dict[str, Any]], list[str]]:
    """The tools that the model is told of, and the names of those of which one must be called."""
    given = body.take("tools", list) or []
    if len(given) > MOST_TOOLS:
        body.refuse("tools", f"at most {MOST_TOOLS}")
    tools = [_tool(body, number, tool) for number, tool in enumerate(given)]
    names = [tool["function"]["name"] for tool in tools]
    choice = body.take("tool_choice", str, dict)
    if isinstance(choice, dict):
        function = choice.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        if choice.get("type") != "function" or not isinstance(name, str) or name not in names:
            body.refuse("tool_choice", "must name one of the tools: {'type': 'function', 'function': {'name': …}}")
        return tools, [name]
    if choice not in (None, "auto", "none", "required"):
        body.refuse("tool_choice", "must be auto, none, required, or an object that names a tool")
    if choice == "required" and not tools:
        body.refuse("tool_choice", "required without tools: send tools as well")
    return ([] if choice == "none" else tools), (names if choice == "required" else [])


def _tool(body: Fields, number: int, tool: Any) -> dict[str, Any]:
    where = f"tools[{number}]"
    if not isinstance(tool, dict):
        body.refuse(where, "must be an object")
    fields = Fields(tool, f"{where}.")
    fields.choice("type", ("function",))
    function = fields.inner("function", needed=True)
    assert function is not None
    name = function.take("name", str, needed=True)
    check_tool_name(function, name)
    parameters = function.take("parameters", dict) or {}
    check_schema(function, "parameters", parameters)
    described = {"name": name, "description": function.take("description", str) or "", "parameters": parameters}
    function.ignore("strict")
    function.end()
    fields.end()
    return {"type": "function", "function": described}


def read_messages(body: Fields) -> list[dict[str, Any]]:
    """The messages of a body. Raises Refusal."""
    given = body.take("messages", list, needed=True)
    if not given:
        body.refuse("messages", "is empty: send at least one message")
    messages = []
    media = 0
    for number, message in enumerate(given):
        where = f"messages[{number}]"
        if not isinstance(message, dict):
            body.refuse(where, "must be an object")
        read = _message(Fields(message, f"{where}."))
        messages.append(read)
        content = read["content"]
        media += sum(part["type"] != "text" for part in content) if isinstance(content, list) else 0
    if media > MOST_MEDIA:
        body.refuse("messages", f"at most {MOST_MEDIA} pictures and sounds")
    return messages


def _message(fields: Fields) -> dict[str, Any]:
    role = fields.choice("role", _ROLES)
    if role is None:
        fields.refuse("role", "is missing")
    content = fields.take("content", str, list)
    if isinstance(content, list):
        content = [_part(fields, number, part) for number, part in enumerate(content)]
    message: dict[str, Any] = {"role": role, "content": content or ""}
    if role == "assistant":
        for name in ("reasoning_content", "reasoning"):
            if thought := fields.take(name, str):
                message["reasoning_content"] = thought
        calls = fields.take("tool_calls", list) or []
        if calls:
            message["tool_calls"] = [_call(fields, number, call) for number, call in enumerate(calls)]
        fields.ignore("refusal", "audio", "annotations", "function_call")
    elif content is None:
        fields.refuse("content", "is missing")
    if role == "tool":
        message["tool_call_id"] = fields.take("tool_call_id", str, needed=True)
    fields.ignore("name")
    fields.end()
    return message


def _call(fields: Fields, number: int, call: Any) -> dict[str, Any]:
    where = f"tool_calls[{number}]"
    if not isinstance(call, dict):
        fields.refuse(where, "must be an object")
    called = Fields(call, f"{fields.name(where)}.")
    identifier = called.take("id", str)
    function = called.inner("function", needed=True)
    assert function is not None
    name = function.take("name", str, needed=True)
    arguments = function.take("arguments", str, dict) or {}
    return {**({"id": identifier} if identifier else {}), "function": {"name": name, "arguments": arguments}}


def _part(fields: Fields, number: int, part: Any) -> dict[str, Any]:
    where = f"content[{number}]"
    if not isinstance(part, dict):
        fields.refuse(where, "must be an object")
    inner = Fields(part, f"{fields.name(where)}.")
    kind = inner.choice("type", ("text", "image_url", "input_audio", "video_url", "refusal"))
    match kind:
        case "text" | "refusal":
            read: dict[str, Any] = {"type": "text", "text": inner.take(kind, str, needed=True)}
        case "image_url" | "video_url":
            address = inner.inner(kind, needed=True)
            assert address is not None
            medium = kind.removesuffix("_url")
            read = {"type": medium, medium: data_url(address, "url", address.take("url", str, needed=True))}
            address.ignore("detail")
            address.end()
        case "input_audio":
            sound = inner.inner("input_audio", needed=True)
            assert sound is not None
            read = {"type": "audio", "audio": decoded(sound, "data", sound.take("data", str, needed=True))}
            sound.ignore("format")
            sound.end()
        case _:
            inner.refuse("type", "is missing")
    inner.ignore("cache_control")
    inner.end()
    return read
