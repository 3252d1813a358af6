"""Functions from a person's Python file as tools of the model."""

from __future__ import annotations

import importlib.util
import inspect
import sys
import traceback
import types
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from gemma4_mlx.errors import InputError
from gemma4_mlx.generation.tool_functions import Tools
from gemma4_mlx.processing.tool_functions import Tool

from ..exit_codes import one_line

_MODULE = "gemma4_mlx_tools_file"


class FileTools(Tools):
    """Functions of a file. What they print goes to stderr: stdout is for answers."""

    def call(self, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Run a function, see `Tools.call`."""
        with redirect_stdout(sys.stderr):
            return super().call(name, arguments)


def load_tools(path: Path) -> FileTools:
    """Run a Python file and take its functions: those of `__all__` if it has one, else all without a leading `_`.

    Raises:
        InputError: there is no such file, it raises, or a function lacks a docstring or a type; in one line.
    """
    if not path.is_file():
        raise InputError(f"there is no file {path}: give a Python file with functions")
    module = _run(path)
    exported = getattr(module, "__all__", None)
    names = [name for name in vars(module) if not name.startswith("_")] if exported is None else list(exported)
    functions = {name: getattr(module, name, None) for name in names}
    tools = {
        name: _tool(function, path)
        for name, function in functions.items()
        if inspect.isfunction(function) and (exported is not None or function.__module__ == _MODULE)
    }
    if not tools:
        raise InputError(f"{path} has no functions: define some, with types and docstrings")
    return FileTools(tools)


def _run(path: Path) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(_MODULE, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path} is not a Python file: its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[_MODULE] = module  # dataclasses and string annotations look it up
    sys.path.append(str(path.parent.resolve()))  # its neighbours, after everything installed
    try:
        with redirect_stdout(sys.stderr):
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a person's code may raise anything
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = f" line {frames[-1].lineno}" if frames else ""
        raise InputError(f"{path}{line} raised {type(error).__name__}: {one_line(error)}") from error
    return module


def _tool(function: Callable[..., Any], path: Path) -> Tool:
    try:
        return Tool.of(function)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error
