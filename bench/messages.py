"""How long Enter takes, and what becomes of random messages.

    python bench/messages.py [COUNT] [SEED]

Each is typed and pasted. It prints the slowest, and every one that lost a character or attached another file than it
names, and fails if there is any or if one took more than 0.1 s. Opening the files themselves is not counted.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # for the messages

from gemma4_mlx.app.line import named_files
from gemma4_mlx.app.line.attachments import Attachment
from gemma4_mlx.app.line.line_input import InputLine

from random_messages import Message, pictures, random_message

LONGEST_SECONDS = 0.1


def unopened(path: Path, image_tokens: int) -> Attachment:
    """What stands for a file; opening it would take its own time."""
    return Attachment("image", path.name, "", None, path=path.resolve())


def typed(line: InputLine, message: Message) -> tuple[float, str]:
    """Seconds until it can be sent, and what is wrong with what is sent."""
    began = time.perf_counter()
    sent = line.sent(line.checked(message.text))
    seconds = time.perf_counter() - began
    files = [attachment.path for attachment in sent.attachments]
    wrong = "" if files == message.files else f"attached {files} instead of {message.files}"
    if not message.is_files and sent.text != message.text.strip() and sent.text != message.text:
        wrong += "lost words"
    return seconds, wrong


def pasted(line: InputLine, message: Message) -> tuple[float, str]:
    """The same when it is pasted: only what is nothing but files attaches them."""
    began = time.perf_counter()
    dropped = line.dropped(message.text)
    named_files.names_in(message.text)
    seconds = time.perf_counter() - began
    files = [attachment.path for attachment in dropped.attachments]
    return seconds, "" if files == (message.files if message.is_files else []) else f"attached {files}"


def main(count: int, seed: int) -> int:
    """Returns the exit code."""
    chance = random.Random(seed)
    named_files.open_attachment = unopened  # type: ignore[assignment]
    slowest = [(0.0, ""), (0.0, "")]
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        files = pictures(Path(folder).resolve() / "My Pictures")
        os.chdir(files[0].parent)
        line = InputLine([], str)
        for _ in range(count):
            message = random_message(chance, files)
            for way, send in enumerate((typed, pasted)):
                seconds, wrong = send(line, message)
                if seconds > LONGEST_SECONDS:  # something else was running, perhaps
                    seconds = min(seconds, *(send(line, message)[0] for _ in range(2)))
                slowest[way] = max(slowest[way], (seconds, message.text[:60]))
                if wrong:
                    failures += 1
                    print(f"{wrong}: {message.text[:300]!r}")
    for way, (seconds, text) in zip(("typed", "pasted"), slowest, strict=True):
        print(f"{way}: {count:,} messages, the slowest {seconds * 1000:.1f} ms: {text!r}")
    print(f"{failures} lost or attached wrongly")
    return int(failures > 0 or max(slowest)[0] > LONGEST_SECONDS)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("count", type=int, nargs="?", default=10_000)
    parser.add_argument("seed", type=int, nargs="?", default=1)
    sys.exit(main(**vars(parser.parse_args())))
