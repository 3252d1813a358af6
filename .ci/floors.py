"""Print the lowest version that pyproject.toml allows of each direct dependency, as constraints for pip."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
for requirements in (project["dependencies"], *project["optional-dependencies"].values()):
    for requirement in requirements:
        name, marker = re.fullmatch(r"([\w-]+)[^;]*(;.*)?", requirement).groups()
        if name == project["name"]:
            continue
        (floor,) = re.findall(r"[>=]=([\w.]+)", requirement.partition(";")[0])  # each has one
        print(f"{name}=={floor}{marker or ''}")
