"""Somebody with a home folder, a config file and a Hub of their own, who runs the real command.

Not a test itself.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from command_line import COMMAND, environment


@dataclass
class User:
    """Attributes:
    home: their folder.
    more: what their environment has besides that of somebody who has set nothing.
    """

    home: Path
    more: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        return {**environment(), "HOME": str(self.home), **self.more}

    @property
    def config(self) -> Path:
        """Where their config file is."""
        place = "Library/Application Support" if sys.platform == "darwin" else ".config"
        return self.home / place / "gemma4-mlx" / "config.toml"

    @property
    def cache(self) -> Path:
        """Where what they fetch from the Hub goes."""
        return self.home / ".cache" / "huggingface" / "hub"

    def sets(self, config: str) -> None:
        """Write their config file."""
        self.config.parent.mkdir(parents=True, exist_ok=True)
        self.config.write_text(config, encoding="utf-8")

    def reaches(self, url: str) -> None:
        """Their Hub is at `url`."""
        self.more |= {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": url}

    def run(self, *arguments: str | Path, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run `gemma4-mlx` to its end."""
        return subprocess.run(
            [*COMMAND, *map(str, arguments)],
            env=self.environment,
            cwd=self.home,
            timeout=120,
            check=False,
            capture_output=True,
            text=True,
            encoding="utf-8",
            **({"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}),
        )
