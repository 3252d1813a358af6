"""A program for tests: writes the Markdown of a file to the screen as a model would, a few characters at a time.

Not a test itself. Arguments: the file, seconds between pieces, and `think` to show thoughts. After Ctrl-C it says how
much it has written.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from gemma4_mlx.app.answer.answer_screen import AnswerScreen
from gemma4_mlx.app.interrupts import Interrupts


def main() -> None:
    file, pause, *options = sys.argv[1:]
    answer = Path(file).read_text()
    screen = AnswerScreen(show_thoughts="think" in options)
    with Interrupts() as interrupts:
        with screen:
            for word in ["What ", "is asked?\nA list, ", "perhaps."]:
                screen.thought(word)
            for start in range(0, len(answer), 6):
                if interrupts():
                    break
                screen.answer(answer[start : start + 6])
                time.sleep(float(pause))
            else:
                screen.tool_call("weather", {"city": "Plzeň", "days": 3})
                screen.tool_result("weather", json.dumps({"hours": list(range(1000))}))
                screen.answer("That is **all**.")
        if interrupts():
            print(f"stopped after {len(screen.text)} characters")


if __name__ == "__main__":
    main()
