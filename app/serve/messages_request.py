"""The body of `/v1/messages`, Anthropic's form → messages and settings, as the library takes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .chat_request import MOST_STOPS, MOST_TOOLS, ChatRequest, check_schema, check_tool_name
from .fields import Fields
from .media import MOST_MEDIA, decoded

if TYPE_CHECKING:
    pass

_EFFORTS = ("low", "medium", "high", "xhigh", "max")


def read_messages_request(body: Fields, counting: bool = False) -> ChatRequest:
    """Read a body.

    Args:
        body: as it came.
        counting: its tokens are to be counted, and `max_tokens` may be missing.

    Raises:
        Refusal: it names the field that is wrong.
    """
    from gemma4_mlx.generation.answers import Request

    model = body.take("model", str)
    messages = _system(body) + _messages(body)
    if sum(map(_media_of, messages)) > MOST_MEDIA:
        body.refuse("messages", f"at most {MOST_MEDIA} pictures")
    tools = _tools(body)
    chosen, must_call, several = _tool_choice(body, tools)
    most = body.whole("max_tokens", 1)
    if most is None and not counting:
        body.refuse("max_tokens", "is missing")
    stop = body.take("stop_sequences", list) or []
    if len(stop) > MOST_STOPS or not all(isinstance(text, str) and text for text in stop):
        body.refuse("stop_sequences", f"must be at most {MOST_STOPS} texts, none of them empty")
    request = Request(
        max_tokens=most or 1,
        temperature=body.number("temperature", 0, 1),
        top_p=body.number("top_p", 0, 1) or None,
        top_k=body.whole("top_k", 0),
        thinking=_thinking(body),
        tools=chosen or None,
        stop=stop,
        must_call=must_call,
        several_calls=several,
    )
    stream = bool(body.take("stream", bool))
    body.ignore("metadata", "service_tier", "cache_control", "context_management", "betas")
    body.end()
    return ChatRequest(messages, request, stream, include_usage=True, model=model)


def _thinking(body: Fields) -> bool:
    thinking = body.inner("thinking")
    effort = body.inner("output_config")
    if effort is not None:
        effort.choice("effort", _EFFORTS)  # without `thinking` it says how long to talk, and changes nothing
        effort.end()
    if thinking is None:
        return False
    kind = thinking.choice("type", ("enabled", "disabled", "adaptive"))
    thinking.whole("budget_tokens", 1)
    thinking.ignore("display")
    thinking.end()
    return kind in ("enabled", "adaptive")


def _system(body: Fields) -> list[dict[str, Any]]:
    system = body.take("system", str, list)
    if isinstance(system, list):
        system = [_block(body, f"system[{number}]", block, ("text",)) for number, block in enumerate(system)]
    return [{"role": "system", "content": system}] if system else []


def _messages(body: Fields) -> list[dict[str, Any]]:
    given = body.take("messages", list, needed=True)
    if not given:
        body.refuse("messages", "is empty: send at least one message")
    messages: list[dict[str, Any]] = []
    for number, message in enumerate(given):
        where = f"messages[{number}]"
        if not isinstance(message, dict):
            body.refuse(where, "must be an object")
        fields = Fields(message, f"{where}.")
        role = fields.choice("role", ("user", "assistant", "system"))
        if role is None:
            fields.refuse("role", "is missing")
        content = fields.take("content", str, list, needed=True)
        fields.end()
        if isinstance(content, str):
            messages.append({"role": role, "content": content})
        elif role == "assistant":
            messages.append(_answer(fields, content))
        else:
            messages += _words(fields, role, content)
    return messages


def _words(fields: Fields, role: str, content: list[Any]) -> list[dict[str, Any]]:
    """What a person says, and before it the results of tools."""
    blocks = [
        _block(fields, f"content[{number}]", block, ("text", "image", "tool_result"))
        for number, block in enumerate(content)
    ]
    results = [block for block in blocks if block.get("role") == "tool"]
    words = [block for block in blocks if block.get("role") != "tool"]
    return results + ([{"role": role, "content": words}] if words or not results else [])


def _answer(fields: Fields, content: list[Any]) -> dict[str, Any]:
    """What the model said."""
    known = ("text", "thinking", "redacted_thinking", "tool_use")
    blocks = [_block(fields, f"content[{number}]", block, known) for number, block in enumerate(content)]
    words = [block for block in blocks if block.get("type") == "text"]
    calls = [block for block in blocks if "function" in block]
    thought = "\n\n".join(block["thought"] for block in blocks if "thought" in block)
    return {
        "role": "assistant",
        "content": words,
        **({"reasoning_content": thought} if thought else {}),
        **({"tool_calls": calls} if calls else {}),
    }


def _block(fields: Fields, where: str, block: Any, known: tuple[str, ...]) -> dict[str, Any]:
    """A block of a message, made anew: a part, a call, a result, or a thought."""
    if not isinstance(block, dict):
        fields.refuse(where, "must be an object")
    inner = Fields(block, f"{fields.name(where)}.")
    inner.ignore("cache_control", "citations")
    read: dict[str, Any]
    match inner.choice("type", known):
        case "text":
            read = {"type": "text", "text": inner.take("text", str, needed=True)}
        case "image":
            source = inner.inner("source", needed=True)
            assert source is not None
            if source.choice("type", ("base64", "url", "file")) != "base64":
                source.refuse("type", "only base64 is read here, no address and no file")
            read = {"type": "image", "image": decoded(source, "data", source.take("data", str, needed=True))}
            source.ignore("media_type")
            source.end()
        case "tool_result":
            content = inner.take("content", str, list)
            if isinstance(content, list):
                content = [
                    _block(inner, f"content[{number}]", part, ("text", "image")) for number, part in enumerate(content)
                ]
            read = {
                "role": "tool",
                "tool_call_id": inner.take("tool_use_id", str, needed=True),
                "content": content or "",
            }
            inner.take("is_error", bool)
        case "tool_use":
            name = inner.take("name", str, needed=True)
            read = {
                "id": inner.take("id", str, needed=True),
                "function": {"name": name, "arguments": inner.take("input", dict) or {}},
            }
            inner.ignore("caller")
        case "thinking":
            read = {"thought": inner.take("thinking", str, needed=True)}
            inner.ignore("signature")
        case "redacted_thinking":
            read = {}
            inner.ignore("data")
        case _:
            inner.refuse("type", "is missing")
    inner.end()
    return read


def _media_of(message: dict[str, Any]) -> int:
    content = message["content"]
    return sum(part["type"] == "image" for part in content) if isinstance(content, list) else 0


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
        fields.choice("type", ("custom",))
        name = fields.take("name", str, needed=True)
        check_tool_name(fields, name)
        schema = fields.take("input_schema", dict) or {}
        check_schema(fields, "input_schema", schema)
        described = {"name": name, "description": fields.take("description", str) or "", "parameters": schema}
        fields.ignore("cache_control", "strict", "input_examples", "eager_input_streaming")
        fields.end()
        tools.append({"type": "function", "function": described})
    return tools


def _tool_choice(body: Fields, tools: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[str], bool]:
    """The tools that the model is told of, those of which one must be called, and whether several may be."""
    names = [tool["function"]["name"] for tool in tools]
    choice = body.inner("tool_choice")
    if choice is None:
        return tools, [], True
    kind = choice.choice("type", ("auto", "any", "tool", "none"))
    name = choice.take("name", str)
    several = not choice.take("disable_parallel_tool_use", bool)
    choice.end()
    if kind == "none":
        return [], [], several
    if kind == "any" and not tools:
        choice.refuse("type", "any without tools: send tools as well")
    if kind == "tool" and name not in names:
        choice.refuse("name", "must name one of the tools")
    return tools, names if kind == "any" else [str(name)] if kind == "tool" else [], several
