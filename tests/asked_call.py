"""A program for tests: a model's call of a function, given as JSON, is asked about as in a chat.

Not a test itself. Arguments: a file of JSON with name and arguments, and seconds to wait first. Says whether it ran.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from gemma4_mlx.app.c_output import separate_stderr
from gemma4_mlx.app.terminal import say
from gemma4_mlx.app.tools.tool_rounds import Permission, answer_in_rounds

from gemma4_mlx.generation import Generation, ToolCall
from gemma4_mlx.generation.tool_functions import Tools
from gemma4_mlx.processing.tool_functions import Tool


def main() -> None:
    file, pause = sys.argv[1:]
    separate_stderr()
    name, arguments = json.loads(Path(file).read_text())
    ran: list[str] = []

    def run(**given: object) -> str:
        ran.append(name)
        return "done"

    tools = Tools({name: Tool(run, {}, {key: type(value) for key, value in arguments.items()}, [])})
    answers = iter([[ToolCall(name, arguments)], []])

    def generate(replies: object) -> Generation:
        time.sleep(float(pause))
        calls = next(answers)
        return Generation("" if calls else "All said.", "", calls, [], "tool_call" if calls else "stop", None)

    answer_in_rounds(generate, tools, Permission(granted=False), lambda replies: None)
    say("it ran" if ran else "it did not run")


if __name__ == "__main__":
    main()
