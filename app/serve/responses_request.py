"""The body of `/v1/responses`, OpenAI's newer form → messages and settings, as the library takes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .chat_request import EFFORTS, MOST_TOOLS, ChatRequest, check_schema, check_tool_name
from .fields import Fields
from .media import MOST_MEDIA, data_url, decoded

if TYPE_CHECKING:
    pass

# What clients send and what changes nothing about an answer here.
_IGNORED = (
    *("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"),
    *("include", "truncation", "stream_options"),
)


def read_responses_request(body: Fields, most_tokens: int) -> ChatRequest:
    """Read a body.

    Args:
        body: as it came.
        most_tokens: how long an answer may be where the client says nothing.

    Raises:
        Refusal: it names the field that is wrong.
    """
    from gemma4_mlx.generation.answers import Request

    model = body.take("model", str)
    instructions = body.take("instructions", str)
    messages = [{"role": "system", "content": instructions}] if instructions else []
    messages += _input(body)
    for field in ("previous_response_id", "conversation", "prompt"):
        if body.take(field, str, dict) is not None:
            body.refuse(field, "no conversation is kept here: send all of it as input")
    tools = _tools(body)
    must_call, tools = _tool_choice(body, tools)
    several = body.take("parallel_tool_calls", bool)
    schema = _format(body)
    if schema is not None and tools:
        body.refuse("text", "a JSON answer has no room for tools: send one of the two")
    request = Request(
        max_tokens=body.whole("max_output_tokens", 1) or most_tokens,
        temperature=body.number("temperature", 0, 2),
        top_p=body.number("top_p", 0, 1) or None,
        thinking=_thinking(body),
        tools=tools or None,
        schema=schema,
        must_call=must_call,
        several_calls=several is not False,
    )
    stream = bool(body.take("stream", bool))
    body.only("background", False)
    body.only("top_logprobs", 0)
    body.ignore(*_IGNORED)
    body.end()
    return ChatRequest(messages, request, stream, include_usage=True, model=model)


def _thinking(body: Fields) -> bool:
    reasoning = body.inner("reasoning")
    if reasoning is None:
        return False
    effort = reasoning.choice("effort", EFFORTS)
    reasoning.ignore("summary", "generate_summary")
    reasoning.end()
    return EFFORTS[effort or "none"]


def _format(body: Fields) -> dict[str, Any] | None:
    text = body.inner("text")
    if text is None:
        return None
    text.ignore("verbosity")
    form = text.inner("format")
    text.end()
    if form is None:
        return None
    kind = form.choice("type", ("text", "json_object", "json_schema"))
    schema = None
    if kind == "json_object":
        schema = {"type": "object"}
    elif kind == "json_schema":
        schema = form.take("schema", dict, needed=True)
        check_schema(form, "schema", schema)
    form.ignore("name", "strict", "description")
    form.end()
    return schema


def _tools(body: Fields) -> list[dict[str, Any]]:
    given = body.take("tools", list) or []
    if len(given) > MOST_TOOLS:
        body.refuse("tools", f"at most {MOST_TOOLS}")
    tools = []
    for number, tool in enumerate(given):
        where = f"tools[{number}]"
        if not isinstance(tool, dict):
            body.refuse(where, "must be an object")
        fields = Fields(tool, f"{where}.")
        fields.choice("type", ("function",))
        name = fields.take("name", str, needed=True)
        check_tool_name(fields, name)
        schema = fields.take("parameters", dict) or {}
        check_schema(fields, "parameters", schema)
        described = {"name": name, "description": fields.take("description", str) or "", "parameters": schema}
        fields.ignore("strict")
        fields.end()
        tools.append({"type": "function", "function": described})
    return tools


def _tool_choice(body: Fields, tools: list[dict[str, Any]]) -> tuple[list[str], list[dict[str, Any]]]:
    """The names of tools of which one must be called, and the tools that the model is told of."""
    names = [tool["function"]["name"] for tool in tools]
    choice = body.take("tool_choice", str, dict)
    if isinstance(choice, dict):
        if choice.get("type") != "function" or choice.get("name") not in names:
            body.refuse("tool_choice", "must name one of the tools: {'type': 'function', 'name': …}")
        return [choice["name"]], tools
    if choice not in (None, "auto", "none", "required"):
        body.refuse("tool_choice", "must be auto, none, required, or an object that names a tool")
    if choice == "required" and not tools:
        body.refuse("tool_choice", "required without tools: send tools as well")
    return (names if choice == "required" else []), ([] if choice == "none" else tools)


def _input(body: Fields) -> list[dict[str, Any]]:
    given = body.take("input", str, list, needed=True)
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    if not given:
        body.refuse("input", "is empty: send at least one message")
    messages: list[dict[str, Any]] = []
    media = 0
    for number, item in enumerate(given):
        where = f"input[{number}]"
        if not isinstance(item, dict):
            body.refuse(where, "must be an object")
        fields = Fields(item, f"{where}.")
        kinds = ("message", "function_call", "function_call_output", "reasoning")
        match fields.choice("type", kinds) or "message":
            case "message":
                role = fields.choice("role", ("system", "developer", "user", "assistant"))
                if role is None:
                    fields.refuse("role", "is missing")
                content = _content(fields, "content")
                media += sum(part["type"] != "text" for part in content) if isinstance(content, list) else 0
                messages.append({"role": role, "content": content})
            case "function_call":
                call = {
                    "id": fields.take("call_id", str, needed=True),
                    "function": {
                        "name": fields.take("name", str, needed=True),
                        "arguments": fields.take("arguments", str) or "",
                    },
                }
                if not messages or messages[-1]["role"] != "assistant":
                    messages.append({"role": "assistant", "content": ""})
                messages[-1].setdefault("tool_calls", []).append(call)
            case "function_call_output":
                identifier = fields.take("call_id", str, needed=True)
                messages.append({"role": "tool", "tool_call_id": identifier, "content": _content(fields, "output")})
            case "reasoning":
                fields.ignore("summary", "content", "encrypted_content")
        fields.ignore("id", "status", "phase")
        fields.end()
    if media > MOST_MEDIA:
        body.refuse("input", f"at most {MOST_MEDIA} pictures and sounds")
    return messages


def _content(fields: Fields, field: str) -> str | list[dict[str, Any]]:
    content = fields.take(field, str, list, needed=True)
    if isinstance(content, str):
        return content
    parts = []
    for number, part in enumerate(content):
        where = f"{field}[{number}]"
        if not isinstance(part, dict):
            fields.refuse(where, "must be an object")
        inner = Fields(part, f"{fields.name(where)}.")
        read: dict[str, Any]
        match inner.choice("type", ("input_text", "output_text", "refusal", "input_image", "input_audio")):
            case "input_text" | "output_text":
                read = {"type": "text", "text": inner.take("text", str, needed=True)}
                inner.ignore("annotations", "logprobs")
            case "refusal":
                read = {"type": "text", "text": inner.take("refusal", str, needed=True)}
            case "input_image":
                url = inner.take("image_url", str, needed=True)
                read = {"type": "image", "image": data_url(inner, "image_url", url)}
                inner.ignore("detail")
            case "input_audio":
                sound = inner.inner("input_audio", needed=True)
                assert sound is not None
                read = {"type": "audio", "audio": decoded(sound, "data", sound.take("data", str, needed=True))}
                sound.ignore("format")
                sound.end()
            case _:
                inner.refuse("type", "is missing")
        inner.end()
        parts.append(read)
    return parts
