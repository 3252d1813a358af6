"""The model asks for functions, gets their results, and goes on, until it has said all."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..answer.answer_screen import AnswerScreen
from ..answer.shown_call import all_rows, call_rows
from ..interrupts import ctrl_c_is_thrown
from ..messages import Message, assistant_message
from ..terminal import note, terminal_size
from ..typed_ahead import asked, can_be_asked, lines_are_typed

if TYPE_CHECKING:
    from gemma4_mlx.generation import Generation, ToolCall
    from gemma4_mlx.generation.tool_functions import Tools


MOST_ROUNDS = 8
_REFUSED = {"error": "the user did not allow this call"}


class Permission:
    """Whether a function may be run: asked of the person each time, until they say always.

    Always is for the function of that name in the file that was read when this program began, whatever becomes of the
    file, and until `forget`.

    Args:
        granted: never ask.
    """

    def __init__(self, granted: bool) -> None:
        self._granted = granted
        self._always: set[str] = set()

    def forget(self) -> None:
        """Another conversation or model: whoever said always meant calls of the one before."""
        self._always.clear()

    def __call__(self, call: ToolCall) -> bool:
        """Ask for one call, which stands on the screen already. Raises KeyboardInterrupt."""
        name = call.name
        if self._granted or name in self._always:
            return True
        if not can_be_asked():
            note(f"note: {name} was not run, because there is nobody to ask; --yes runs every call")
            return False
        rows, is_all = call_rows(name, call.arguments, *terminal_size(sys.stderr))
        choices = "y(es), n(o), a(lways)" if is_all else "y(es), n(o), a(lways), s(how all)"
        while True:
            answer = asked(f"run {name}? {choices}: ")
            match answer.strip().lower():
                case "y" | "yes":
                    return True
                case "a" | "always":
                    self._always.add(name)
                    return True
                case "n" | "no":
                    return False
                case "s" | "show" | "show all":
                    note(*all_rows(name, call.arguments, terminal_size(sys.stderr).columns))
            if not answer:  # Ctrl-D
                note("")
                return False
            note(*rows)


def answer_in_rounds(
    generate: Callable[[list[Message]], Generation],
    tools: Tools | None,
    may_run: Callable[[ToolCall], bool],
    keep: Callable[[list[Message]], None],
) -> Generation:
    """Let the model answer, running the functions it calls on the way.

    Args:
        generate: answers the conversation followed by these replies.
        tools: None: there are none, and calls are ignored.
        may_run: asked before each call.
        keep: given all replies so far, calls and results, whenever they end in a place to go on from.

    Returns:
        The last round's generation. `keep` has its words.
    """
    replies: list[Message] = []
    rounds = 0
    while True:
        generation = generate(replies)
        if generation.unread_calls:
            note(
                "note: the model meant to call a function, but its call cannot be read, or not in one way only; it was "
                "not run, and stands in the answer"
            )
        calls = generation.tool_calls if tools is not None else []
        if calls and rounds == MOST_ROUNDS:
            note(f"note: stopped after {MOST_ROUNDS} rounds of function calls; to let it go on, say so")
            calls = []
        message = assistant_message(generation.text, generation.thought)
        if not calls or tools is None:
            keep([*replies, message])
            return generation
        rounds += 1
        identifiers = [f"call_{len(replies)}_{number}" for number in range(len(calls))]
        message["tool_calls"] = [_as_message(*pair) for pair in zip(identifiers, calls, strict=True)]
        results = [_run(call, tools, may_run) for call in calls]
        replies += [message, *(_result(*of) for of in zip(identifiers, calls, results, strict=True))]
        keep([*replies])


def _run(call: ToolCall, tools: Tools, may_run: Callable[[ToolCall], bool]) -> Mapping[str, Any]:
    with AnswerScreen(show_thoughts=False) as screen:
        screen.tool_call(call.name, call.arguments)
    # What is no function of ours is not worth a question: the model is told.
    with ctrl_c_is_thrown():
        allowed = call.name not in tools.names or may_run(call)
    with ctrl_c_is_thrown(), lines_are_typed():  # a function may ask the person something, or never end
        result = tools.call(call.name, call.arguments) if allowed else _REFUSED
    with AnswerScreen(show_thoughts=False) as screen:
        screen.tool_result(call.name, json.dumps(result, ensure_ascii=False))
    return result


def _as_message(identifier: str, call: ToolCall) -> dict[str, Any]:
    return {"id": identifier, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _result(identifier: str, call: ToolCall, result: Mapping[str, Any]) -> Message:
    return {"role": "tool", "tool_call_id": identifier, "name": call.name, "content": dict(result)}
