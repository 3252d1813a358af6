"""Functions from a person's Python file as tools of the model: their JSON descriptions, and calling them.

A tool is a function with a docstring and a type for every parameter. What the model gives is checked against the types
before the function sees it.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import json
import re
import sys
import traceback
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from gemma4_mlx.errors import InputError

from ..exit_codes import one_line
from .tool_types import fitted, schema_of

_MODULE = "gemma4_mlx_tools_file"
# Google's docstring style: "Args:", then "name (type): what it is", continued on deeper lines.
_SECTION = re.compile(r"^(Args|Arguments|Parameters|Returns|Yields|Raises|Examples?|Notes?):\s*$", re.MULTILINE)
_ARGUMENT = re.compile(r"^(\s+)\*{0,2}(\w+)\s*(?:\([^)]*\))?:\s*(.*)$")


@dataclasses.dataclass(frozen=True)
class Tool:
    """One function.

    Attributes:
        description: its JSON description, in the form chat templates take.
        types: parameter name → type.
        required: parameters without a default.
    """

    function: Callable[..., Any]
    description: dict[str, Any]
    types: Mapping[str, Any]
    required: Sequence[str]


class Tools:
    """The functions a model may call, by name."""

    def __init__(self, tools: Mapping[str, Tool]) -> None:
        self._tools = dict(tools)

    @property
    def descriptions(self) -> list[dict[str, Any]]:
        """All of them, for the processor."""
        return [tool.description for tool in self._tools.values()]

    @property
    def names(self) -> list[str]:
        """What they are called."""
        return list(self._tools)

    def call(self, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Run a function.

        What it prints goes to stderr: stdout is for answers.

        Returns:
            What the model is told: the function's result if that is a JSON object, `{"value": result}` if it is
            anything else, and `{"error": …}` when the arguments do not fit, or the function raises.
        """
        try:
            tool = self._tools.get(name)
            if tool is None:
                raise ValueError(f"there is no function {name}; there are: {', '.join(self._tools)}")
            checked = checked_arguments(tool, arguments)
        except ValueError as error:
            return {"error": str(error)}
        try:
            with redirect_stdout(sys.stderr):
                plain = as_json(tool.function(**checked))
        except (Exception, SystemExit) as error:  # anything a person's code may raise; model and person are told
            return {"error": f"{type(error).__name__}: {one_line(error)}"}
        return plain if isinstance(plain, dict) else {"value": plain}


def load_tools(path: Path) -> Tools:
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
        name: describe(function, path)
        for name, function in functions.items()
        if inspect.isfunction(function) and (exported is not None or function.__module__ == _MODULE)
    }
    if not tools:
        raise InputError(f"{path} has no functions: define some, with types and docstrings")
    return Tools(tools)


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


def describe(function: Callable[..., Any], path: Path) -> Tool:
    """A function's JSON description, from its signature and its docstring. Raises InputError as `load_tools`."""
    where = f"{path}: {function.__name__}"
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise InputError(f"{where} is async: a tool is an ordinary function, which may call asyncio.run")
    documentation = inspect.getdoc(function)
    if not documentation:
        raise InputError(f"{where} has no docstring: say what it does, so that the model knows when to call it")
    try:
        hints = typing.get_type_hints(function)
    except Exception as error:  # annotations are code, too
        raise InputError(f"{where} has a type that means nothing ({one_line(error)})") from error
    said = _documented_arguments(documentation)
    properties: dict[str, Any] = {}
    required = []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise InputError(f"{where} takes {parameter}: a tool's parameters go by name, one by one")
        if name not in hints:
            raise InputError(f"{where} has no type for {name}: write {name}: str, or what it is")
        try:
            properties[name] = schema_of(hints[name])
        except TypeError as error:
            raise InputError(f"{where}: {name} is {error}: use str, int, float, bool, list, dict or Literal") from None
        if name in said:
            properties[name]["description"] = said[name]
        if parameter.default is parameter.empty:
            required.append(name)
    parameters = {"type": "object", "properties": properties, "required": required}
    section = _SECTION.search(documentation)
    summary = documentation[: section.start()].strip() if section else documentation
    about = {"name": function.__name__, "description": " ".join(summary.split()), "parameters": parameters}
    types_of = {name: hints[name] for name in properties}
    return Tool(function, {"type": "function", "function": about}, types_of, required)


def checked_arguments(tool: Tool, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments a model gave, as the function's types want them. Raises ValueError, for the model to read."""
    if unknown := arguments.keys() - tool.types.keys():
        raise ValueError(f"there is no parameter {', '.join(sorted(unknown))}; there are: {', '.join(tool.types)}")
    if missing := [name for name in tool.required if name not in arguments]:
        raise ValueError(f"{', '.join(missing)} must be given")
    return {name: fitted(value, tool.types[name], name) for name, value in arguments.items()}


def as_json(value: Any) -> Any:
    """A function's result as plain JSON; what JSON does not know becomes text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    return json.loads(json.dumps(value, default=str, skipkeys=True), parse_constant=lambda _: None)


def _documented_arguments(documentation: str) -> dict[str, str]:
    """What the "Args:" section says of each parameter."""
    said: dict[str, str] = {}
    section, indent, name = "", None, ""
    for line in documentation.splitlines():
        if header := _SECTION.match(line):
            section = header[1]
            continue
        if section not in ("Args", "Arguments", "Parameters"):
            continue
        found = _ARGUMENT.match(line)
        if found and (indent is None or len(found[1]) <= indent):
            indent, name = len(found[1]), found[2]
            said[name] = found[3].strip()
        elif name and line.strip():
            said[name] = f"{said[name]} {line.strip()}".strip()
    return said
