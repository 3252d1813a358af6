"""Functions that the model may call, and the rounds of calls and results: `run_tools`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..processing.attached import with_media
from ..processing.tool_functions import Tool, as_json
from .answers import generate
from .conversation_cache import ConversationCache

if TYPE_CHECKING:
    from ..model import Gemma4
    from ..processing import Processor
    from .generation_stream import Generation
    from .tool_calls import ToolCall

MOST_ROUNDS = 8
_REFUSED = {"error": "the user did not allow this call"}


class Tools:
    """The functions a model may call, by name."""

    def __init__(self, tools: Mapping[str, Tool]) -> None:
        self._tools = dict(tools)

    @classmethod
    def of(cls, functions: Sequence[Callable[..., Any]]) -> Tools:
        """Functions, described. Raises ValueError for what is none, and for two of one name."""
        if isinstance(functions, str | Mapping) or not isinstance(functions, Sequence):
            raise ValueError(f"tools are a {type(functions).__name__}: give a list of functions")
        tools: dict[str, Tool] = {}
        for number, function in enumerate(functions, start=1):
            if isinstance(function, Mapping):
                raise ValueError(
                    f"tool {number} is a description, which cannot be run: give the function, or run its calls "
                    "yourself, with generate and Generation.message"
                )
            tool = Tool.of(function)
            if tool.name in tools:
                raise ValueError(f"there are two tools called {tool.name}: give each a name of its own")
            tools[tool.name] = tool
        return cls(tools)

    @property
    def descriptions(self) -> list[dict[str, Any]]:
        """All of them, for the processor."""
        return [tool.description for tool in self._tools.values()]

    @property
    def names(self) -> list[str]:
        """What they are called."""
        return list(self._tools)

    def call(self, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Run a function.

        Returns:
            What the model is told: the function's result if that is a JSON object, `{"value": result}` if it is
            anything else, and `{"error": …}` when the arguments do not fit, or the function raises.
        """
        try:
            tool = self._tools.get(name)
            if tool is None:
                raise ValueError(f"there is no function {name}; there are: {', '.join(self._tools)}")
            checked = tool.checked(arguments)
        except ValueError as error:
            return {"error": str(error)}
        try:
            plain = as_json(tool.function(**checked))
        except (Exception, SystemExit) as error:  # anything a person's code may raise; the model is told
            return {"error": f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")}
        return plain if isinstance(plain, dict) else {"value": plain}


def run_tools(
    model: Gemma4,
    processor: Processor,
    messages: Any,
    tools: Sequence[Callable[..., Any]],
    may_run: Callable[[ToolCall], bool] | None = None,
    *,
    max_rounds: int = MOST_ROUNDS,
    images: Iterable[Any] = (),
    audio: Iterable[Any] = (),
    cache: ConversationCache | None = None,
    **options: Any,
) -> Generation:
    """Answer `messages`, running the functions that the model calls on the way.

    What a function returns goes back to the model: an object as it is, anything else as its `value`. So do errors, as
    text: of arguments that do not fit the function's types, and of what the function raises.

    Args:
        model, processor: from `load`.
        messages: a string, or the Hugging Face chat list. A list grows by every message of the answer: calls, results
            and the last words. After an error or an interrupt it holds the rounds that were whole.
        tools: functions with a docstring and a type for every parameter. What a Google-style "Args:" section says of
            each is told to the model.
        may_run: asked before each call, with its `name` and `arguments`; False tells the model that it was not allowed.
            None: every call is run.
        max_rounds: after so many rounds of calls, further ones are not run: the model is told so in the history, and
            the answer returned has them as `tool_calls`.
        images, audio, cache: as for `generate`. None: a cache for this answer.
        options: further arguments of `generate`.

    Returns:
        The model's last answer.

    Raises:
        ValueError: a tool is no function with docstring and types; or as `generate`.
        InputError: as `generate`.
    """
    if isinstance(max_rounds, bool) or not isinstance(max_rounds, int) or max_rounds < 0:
        raise ValueError(f"max_rounds must be a whole number of at least 0, not {max_rounds!r}")
    functions = Tools.of(tools)
    cache = ConversationCache(model) if cache is None else cache
    given = with_media(messages, images, audio)
    history = [{"role": "user", "content": given}] if isinstance(given, str) else given
    rounds = 0
    while True:
        generation = generate(model, processor, history, tools=functions.descriptions, cache=cache, **options)
        # Of an answer that was asked to end, nothing more is to happen.
        calls = [] if generation.finish_reason == "stopped" else generation.tool_calls
        results = [
            _result(functions, call, may_run, None if rounds < max_rounds else f"not run: {max_rounds} rounds are all")
            for call in calls
        ]
        history = [*history, generation.message(with_calls=bool(calls)), *results]
        if isinstance(messages, list):
            messages[:] = history
        if not calls or rounds == max_rounds:
            return generation
        rounds += 1


def _result(
    functions: Tools, call: ToolCall, may_run: Callable[[ToolCall], bool] | None, fault: str | None
) -> dict[str, Any]:
    """The message that tells the model what became of its call."""
    if fault is not None:
        content = {"error": fault}
    elif call.name in functions.names and may_run is not None and not may_run(call):
        content = _REFUSED
    else:
        content = functions.call(call.name, call.arguments)
    return {"role": "tool", "tool_call_id": call.id, "name": call.name, "content": dict(content)}
