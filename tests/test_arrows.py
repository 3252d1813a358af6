"""Which file imports which: no circle, and from room to room only downwards. Read from the source, nothing is run.

An import inside a function counts like one at the top; one under `if TYPE_CHECKING` is for readers and does not.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]

# Of each room, what it may import besides itself and the files that stand beside the rooms.
MAY_IMPORT = {
    "model": set(),
    "checkpoint": {"model"},
    "conversion": {"model", "checkpoint"},
    "processing": {"model"},
    "generation": {"model", "checkpoint", "processing"},
    "speech": {"model", "processing", "generation"},
    "self_test": {"model", "checkpoint", "processing", "generation"},
}
# Files beside the rooms that stand on top of them.
ABOVE = {"gemma4_mlx.loading", "gemma4_mlx"}


@cache
def modules() -> dict[str, Path]:
    found = {}
    for folder, name in ((ROOT / "gemma4_mlx", "gemma4_mlx"), (ROOT / "app", "gemma4_mlx.app")):
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join((name, *(part for part in parts if part != "__init__")))] = path
    return found


def statements(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        yield from statements(node)


@cache
def imported_by(module: str) -> frozenset[str]:
    """The modules of ours that one imports."""
    path = modules()[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found = set()
    for statement in statements(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(statement, ast.Import):
            names = [alias.name for alias in statement.names]
        else:
            base = statement.module or ""
            if statement.level:
                above = ".".join(package.split(".")[: len(package.split(".")) - statement.level + 1])
                base = f"{above}.{base}" if base else above
            names = [
                f"{base}.{alias.name}" if f"{base}.{alias.name}" in modules() else base for alias in statement.names
            ]
        found |= {name for name in names if name in modules()}
    return frozenset(found - {module})


def room(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and (parts[1] in MAY_IMPORT or parts[1] == "app") else None


def test_the_walk_sees_imports_of_every_form() -> None:
    assert "gemma4_mlx.config" in imported_by("gemma4_mlx.model.decoder")
    assert "gemma4_mlx.app.bench.measure" in imported_by("gemma4_mlx.app.bench.bench")  # inside a function
    assert "gemma4_mlx.checkpoint.hub" in imported_by("gemma4_mlx.app.models.fetching")
    assert len(modules()) > 150


def test_no_file_of_the_library_imports_itself_by_way_of_others() -> None:
    done: set[str] = set()

    def walk(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " → ".join((*way[way.index(module) :], module))
        if module not in done:
            for other in sorted(imported_by(module)):
                walk(other, (*way, module))
            done.add(module)

    for module in sorted(modules()):
        if room(module) != "app":
            walk(module, ())


def test_arrows_from_room_to_room_run_downwards() -> None:
    wrong = []
    for module in modules():
        here = room(module)
        for other in imported_by(module):
            there = room(other)
            if here == "app" or module in ABOVE or there == here:
                continue
            if there is None and other not in ABOVE:
                continue
            if here is None or there is None or there not in MAY_IMPORT[here]:
                wrong.append(f"{module} → {other}")
    assert sorted(wrong) == []


def test_nothing_in_the_library_prints() -> None:
    for module, path in modules().items():
        if room(module) != "app":
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                is_print = isinstance(node, ast.Name) and node.id == "print"
                to_terminal = isinstance(node, ast.Attribute) and ast.unparse(node) in ("sys.stdout", "sys.stderr")
                fault = is_print or to_terminal
                assert not fault, f"{module}: {ast.unparse(node)}"


def test_every_folder_of_the_package_is_in_pyproject() -> None:
    listed = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for module, path in modules().items():
        if path.name == "__init__.py":
            assert f'"{module}"' in listed
