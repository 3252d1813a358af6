"""A program for tests: writes the Markdown of a file to the screen as a model would, a few characters at a time.

Not a test itself. Arguments: the file, seconds between pieces, and `think` to show thoughts.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from gemma4_mlx.app.answer.answer_screen import AnswerScreen


def main() -> None:
    file, pause, *options = sys.argv[1:]
    answer = Path(file).read_text()
    with AnswerScreen(show_thoughts="think" in options) as screen:
        for word in ["What ", "is asked?\nA list, ", "perhaps."]:
            screen.thought(word)
        for start in range(0, len(answer), 6):
            screen.answer(answer[start : start + 6])
            time.sleep(float(pause))
        screen.tool_call("weather", {"city": "Plzeň", "days": 3})
        screen.tool_result("weather", "\n".join(f"result {number}" for number in range(20)))
        screen.answer("That is **all**.")


if __name__ == "__main__":
    main()
