"""Ctrl-C at random moments of load, prompt, answer, tool call and transcription in a chat in a real terminal.

    python bench/ctrl_c.py [--rounds 200] [--seed 0]

After each, the chat must live, and its next answer be that of a chat that nobody disturbed. The model is the built-in
one, slowed down (tests/slow_chat.py) so that every part of the work takes long enough to be hit.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from command_line import environment
from random_ctrl_c import disturbed_chats


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        disturbed_chats(options.rounds, options.seed, Path(folder), {**environment(), "HOME": folder}, print)
    print(f"{options.rounds} times: the chat lived, and its next answer was the undisturbed one")


if __name__ == "__main__":
    main()
