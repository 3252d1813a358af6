"""Functions that the model may call, and the rounds of calls and results: `run_tools`."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..processing.attached import with_media
from ..processing.tool_functions import Tool, as_json
from .answers import stream_generate
from .channels import Chunk
from .conversation_cache import ConversationCache
from .generation_stream import Generation, GenerationStream

if TYPE_CHECKING:
    from ..model import Gemma4
    from ..processing import Processor
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

    def keep(history: list[Any], is_over: bool) -> None:
        if isinstance(messages, list):
            messages[:] = history

    def begin(history: Any) -> GenerationStream:
        return stream_generate(model, processor, history, tools=functions.descriptions, cache=cache, **options)

    stream = Rounds(begin, history, functions, may_run, keep, max_rounds)
    for _ in stream:
        pass
    return stream.result()


class Rounds(Iterator[Chunk]):
    """The chunks of an answer, with the rounds of calls on the way; each call is run between two rounds.

    Args:
        begin: begins to answer a history. The first answer is begun at once.
        history: messages to answer.
        functions: that may be called; None: calls are ignored.
        may_run: asked before each call; None: every call is run.
        keep: given the history after every round, and whether it was the last.
        max_rounds: after so many, calls are not run any more, and the answer is over.
    """

    def __init__(
        self,
        begin: Callable[[Any], GenerationStream],
        history: Any,
        functions: Tools | None,
        may_run: Callable[[ToolCall], bool] | None,
        keep: Callable[[list[Any], bool], None],
        max_rounds: int = MOST_ROUNDS,
    ) -> None:
        self._begin = begin
        self._functions = functions
        self._may_run = may_run
        self._keep = keep
        self._rounds_left = max_rounds
        self._is_closed = False
        self._stream = begin(history)
        self._chunks = self._run(history)

    def __next__(self) -> Chunk:
        return next(self._chunks)

    def __enter__(self) -> Rounds:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the answer here. What has come of it is no part of the conversation."""
        self._is_closed = True
        self._stream.close()
        with suppress(ValueError):  # another thread waits in it for a chunk, and ends by itself
            self._chunks.close()

    def result(self) -> Generation:
        """The last round's answer, as far as it has come."""
        return self._stream.result()

    def _run(self, history: Any) -> Generator[Chunk, None, None]:
        while True:
            with self._stream:
                yield from self._stream
            if self._is_closed:
                return
            generation = self._stream.result()
            # Of an answer that was asked to end, nothing more is to happen.
            may_call = self._functions is not None and generation.finish_reason != "stopped"
            calls = generation.tool_calls if may_call else []
            results = [self._run_call(call) for call in calls]
            history = [*history, generation.message(with_calls=bool(calls)), *results]
            is_over = not calls or self._rounds_left == 0
            self._keep(history, is_over)
            if is_over:
                return
            self._rounds_left -= 1
            self._stream = self._begin(history)

    def _run_call(self, call: ToolCall) -> dict[str, Any]:
        """The message that tells the model what became of its call."""
        assert self._functions is not None
        if self._rounds_left == 0:
            content = {"error": "not run: there were too many rounds of calls"}
        elif call.name in self._functions.names and self._may_run is not None and not self._may_run(call):
            content = dict(_REFUSED)
        else:
            content = self._functions.call(call.name, call.arguments)
        return {"role": "tool", "tool_call_id": call.id, "name": call.name, "content": content}
