"""The workflow on GitHub: what is run there cannot change under us, and no test is left out."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
WORKFLOW = (REPOSITORY / ".github" / "workflows" / "ci.yml").read_text()


def test_actions_are_named_by_commit():
    used = re.findall(r"uses: (\S+)", WORKFLOW)
    assert used
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action) for action in used)


def test_on_macs_the_tests_of_commands_and_of_the_library_are_all_tests():
    (patterns,) = re.findall(r"COMMANDS: (.+)", WORKFLOW)
    shell = f"COMMANDS='{patterns}'; " + 'for f in $COMMANDS; do echo "--ignore=$f"; done; echo; echo $COMMANDS'
    done = subprocess.run(["bash", "-c", shell], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    ignored, commands = done.split("\n\n")
    assert [line.removeprefix("--ignore=") for line in ignored.split()] == commands.split()
    assert all((REPOSITORY / name).is_file() for name in commands.split())
    starting_processes = {
        file.name for file in (REPOSITORY / "tests").glob("test_*.py") if "from command_line import" in file.read_text()
    }
    assert len(starting_processes & {Path(name).name for name in commands.split()}) > 0.7 * len(starting_processes)
