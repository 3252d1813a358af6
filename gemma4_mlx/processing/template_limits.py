"""Bounds on what a chat template may do: time, memory, and what it can reach. `chat` renders with it.

A template is a stranger's program. Jinja's sandbox keeps it from files and from Python; it does not keep it from loops
without end or from `'a' * 10**10`. Here every step is counted, and every value that a template makes is measured before
it is there or, where it can only be a little larger than what it is made from, right after.

One rule holds the rest together: no value is larger than `_Budget.largest`, a list in itself any number of times
counted every time. So whatever Python or Jinja does to one in a single step (writes it out, compares, sorts, hashes it)
takes a bounded time.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial, update_wrapper
from itertools import chain
from sys import getsizeof
from typing import Any, TypeVar, cast

import jinja2
import jinja2.ext
import jinja2.nodes as nodes
import jinja2.runtime
import jinja2.utils
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedFormatter
from jinja2.visitor import NodeTransformer
from markupsafe import soft_str

LONGEST_SOURCE = 128 << 10
"""Characters. The makers' templates have 19,000, the longest known of other models about 30,000."""

# All beyond what the messages themselves take: no template copies a conversation a hundred times.
_LARGEST_VALUE = 1 << 20  # bytes
_LARGEST_TIMES = 8  # the size of the messages
_ALL_VALUES = 128 << 20
_ALL_TIMES = 128
# 200 turns take a third of a second where two other programs want the same cores.
_SECONDS = 5.0
_SECONDS_A_MESSAGE = 0.01
_DEEPEST = 200
_LONGEST_INTEGER = 20_000  # bits
_LONGEST_PATTERN = 1_000  # characters of a format, or of what is looked for in a way that is slow

_LOOK_AT_THE_CLOCK = 256  # steps
_LARGE = 1 << 16  # bytes that are worth a look
_A_PIECE = 64  # bytes of one of the many small texts that a split makes
_CONTAINER = 200  # bytes, with what is remembered of it


class TooMuchError(Exception):
    """A template takes more than it may; the message ends the sentence "the chat template …"."""


class _Budget:
    """What one rendering may still take."""

    def __init__(self, messages: int = 0) -> None:
        self.largest = _LARGEST_VALUE
        self._left = _ALL_VALUES
        self._steps = 0
        # The time of this thread alone: another program's load is not the template's fault.
        self._end = time.thread_time() + _SECONDS + _SECONDS_A_MESSAGE * messages
        # By id, with the container itself, so that the id stays its own. Templates cannot change a container.
        self._measured: dict[int, tuple[Any, int, int]] = {}

    def give(self, *values: Any) -> None:
        """Allow for what the template is given."""
        self.largest = self._left = 1 << 62
        given = sum(self.measure(value)[0] for value in values)
        self.largest = _LARGEST_VALUE + _LARGEST_TIMES * given
        self._left = _ALL_VALUES + _ALL_TIMES * given

    def step(self) -> None:
        self._steps += 1
        if self._steps % _LOOK_AT_THE_CLOCK == 0:
            self.look()

    def look(self) -> None:
        if time.thread_time() > self._end:
            raise TooMuchError("takes too long")

    def charge(self, size: int) -> None:
        """Count a new value of `size` bytes."""
        self._left -= size
        if size > self.largest or self._left < 0:
            raise TooMuchError("takes too much memory")
        if size > _LARGE:
            self.look()
        else:
            self.step()

    def made(self, value: Any) -> Any:
        """Count `value`, which the template has made or had made."""
        if isinstance(value, str | bytes):
            self.charge(getsizeof(value))
        elif type(value) is int:
            if value.bit_length() > _LONGEST_INTEGER:
                raise TooMuchError("makes too large a number")
        elif isinstance(value, list | tuple | dict | set | frozenset):
            self.measure(value)
        return value

    def measure(self, value: Any) -> tuple[int, int]:
        """Size and depth of a value, what is in it twice counted twice. A new container is charged."""
        kind = type(value)
        if kind is str or kind in _PLAIN:
            return getsizeof(value), 0
        parts: Iterable[Any]
        if kind is dict or isinstance(value, dict):
            parts = chain(value, value.values())
        elif kind is list or isinstance(value, list | tuple | set | frozenset | _VIEWS):
            parts = value
        else:
            return getsizeof(value), 0
        known = self._measured.get(id(value))
        if known is not None:
            return known[1], known[2]
        size, depth = _CONTAINER + 8 * len(value), 0
        for part in parts:
            if type(part) is str:
                size += getsizeof(part)
            else:
                part_size, part_depth = self.measure(part)
                size += part_size
                if part_depth > depth:
                    depth = part_depth
            if size > self.largest:
                raise TooMuchError("takes too much memory")
        if depth >= _DEEPEST and self.largest < 1 << 62:
            raise TooMuchError("nests too deep")
        self.charge(_CONTAINER + 8 * len(value))
        self._measured[id(value)] = value, size, depth + 1
        return size, depth + 1

    def listed(self, items: Iterator[Any]) -> list[Any]:
        """What an iterator still has."""
        found, size = [], 0
        for item in items:
            self.step()
            size += self.measure(item)[0] + 8
            if size > self.largest:
                raise TooMuchError("takes too much memory")
            found.append(item)
        return found


_PLAIN = (bool, int, float, type(None))
_VIEWS: Any = type({}.keys()) | type({}.values()) | type({}.items())


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, for one template, with a budget.

    Attributes:
        budget: of the rendering that goes on. One at a time: `ChatTemplate` sees to that.
    """

    # Intercepted operators are not worked out while compiling either.
    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, extensions: list[type[jinja2.ext.Extension]]) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=extensions, finalize=self._shown)
        self.budget = _Budget()
        del self.globals["lipsum"]
        self.globals["namespace"] = _Namespace
        for name in _NO_FILTERS:
            del self.filters[name]
        self.set_filters(self.filters)
        self.filters[_STEP] = self._step
        self.filters[_MADE] = self._made
        self.filters[_LOOK] = self._looked
        self.filters[_TEXT] = self._text

    def set_filters(self, filters: Mapping[str, Callable[..., Any]]) -> None:
        """Add filters, bounded as all are."""
        self.filters |= {name: self._bounded(name, function) for name, function in filters.items()}

    def compiled(self, source: str) -> jinja2.Template:
        """The template of a source, with its steps counted.

        Raises:
            TooMuchError, jinja2.TemplateSyntaxError: and what Python's own compiler raises.
        """
        if len(source) > LONGEST_SOURCE:
            raise TooMuchError(f"is longer than {LONGEST_SOURCE} characters")
        self.begin(0)
        tree = _Counted(self).visit(self.parse(source))
        return self.from_string(tree)

    def begin(self, messages: int, *given: Any) -> None:
        """Begin a rendering.

        Args:
            messages: their number.
            given: all that the template will see.
        """
        self.budget = _Budget(messages)
        self.budget.give(*given)

    # What the compiled template calls.

    @jinja2.pass_context  # or it would be worked out while compiling
    def _step(self, context: Any, value: Any) -> Any:
        self.budget.step()
        return value

    def _made(self, value: Any) -> Any:
        return self.budget.made(value)

    def _looked(self, value: Any) -> Any:
        if getsizeof(value) > _LARGE:
            self.budget.look()
        return value

    def _text(self, value: Any) -> str:
        return cast(str, self.budget.made(soft_str(value)))

    def _shown(self, value: Any) -> Any:
        text = value if isinstance(value, str) else str(value)
        self.budget.charge(getsizeof(text))
        return text

    def concat(self, pieces: Iterable[str]) -> str:
        """What a macro or a block has written."""
        found: list[str] = []
        size = 0
        for piece in pieces:
            size += getsizeof(piece)
            if size > self.budget.largest + _CONTAINER * len(found):
                raise TooMuchError("takes too much memory")
            found.append(piece)
        return cast(str, self.budget.made("".join(found)))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        budget = self.budget
        if operator == "+":
            # A list grows by what it is added to, so it is there before it is measured.
            return budget.made(left + right)
        if operator == "%" and isinstance(left, str):
            self._check_format(left, "%", right)
        elif operator == "*":
            for one, other in ((left, right), (right, left)):
                if isinstance(one, int) and isinstance(other, str | bytes | list | tuple):
                    budget.charge(max(0, one) * getsizeof(other))
            if isinstance(left, int) and isinstance(right, int):
                self._check_bits(left.bit_length() + right.bit_length())
        elif operator == "**" and isinstance(left, int) and isinstance(right, int):
            self._check_bits(left.bit_length() * max(0, right))
        return budget.made(super().call_binop(context, operator, left, right))

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805  Jinja's names
        budget = __self.budget
        budget.step()
        if isinstance(__obj, jinja2.runtime.Macro):
            if __obj.catch_varargs or __obj.catch_kwargs:
                budget.measure((args, kwargs))
        elif __obj is jinja2.utils.Cycler:
            budget.measure(args)
        value = super().call(__context, __obj, *args, **kwargs)
        # What a mapping answers was there before.
        return value if type(getattr(__obj, "__self__", None)) is dict else budget.made(value)

    # Most of a rendering is looking things up. What is known to be safe is not asked about again, which takes less time
    # than the sandbox does by itself.

    def getattr(self, obj: Any, attribute: str) -> Any:
        kind = type(obj)
        if kind is _Namespace and attribute[0] != "_":
            try:
                return getattr(obj, attribute)
            except AttributeError:
                return self.undefined(obj=obj, name=attribute)
        if (kind is str or kind is dict) and attribute in _ATTRIBUTES[kind] and attribute != "format":
            method = _METHODS.get(attribute) if kind is str else None
            return getattr(obj, attribute) if method is None else partial(method, self, obj)
        return self._with_method(obj, attribute, super().getattr(obj, attribute))

    def getitem(self, obj: Any, argument: Any) -> Any:
        if type(obj) is dict or type(obj) is list:
            try:
                return obj[argument]
            except (TypeError, LookupError):
                pass
        return self._with_method(obj, argument, super().getitem(obj, argument))

    def _with_method(self, obj: Any, name: Any, value: Any) -> Any:
        guarded = isinstance(obj, str) and isinstance(name, str) and name in _METHODS and callable(value)
        return partial(_METHODS[name], self, obj) if guarded else value

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if not super().is_safe_attribute(obj, attr, value):
            return False
        for kind, names in _ATTRIBUTES.items():
            if isinstance(obj, kind):
                return attr in names
        return type(obj).__module__.startswith("jinja2.") or isinstance(obj, jinja2.runtime.Undefined | _Namespace)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None
        pattern: str = value.__self__
        if value.__name__ == "format_map" or type(pattern) is not str:
            return self._no_such_format

        def bounded(*args: Any, **kwargs: Any) -> str:
            self._check_format(pattern, "{", (args, kwargs))
            return _Formatter(self).vformat(pattern, args, kwargs)

        return bounded

    @staticmethod
    def _no_such_format(*_: Any, **__: Any) -> str:
        raise TooMuchError("formats text in a way that is not supported here: `format` is")

    def _check_bits(self, bits: int) -> None:
        if bits > _LONGEST_INTEGER:
            raise TooMuchError("makes too large a number")

    def _check_format(self, pattern: str, sign: str, values: Any) -> None:
        if len(pattern) > _LONGEST_PATTERN or (sign == "%" and _WIDE.search(pattern)):
            raise TooMuchError("formats text too wide")
        self.budget.charge(pattern.count(sign) * self.budget.measure(values)[0])

    def _bounded(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A filter that measures what it is given and what it makes."""
        place = 0 if jinja2.utils._PassArg.from_obj(function) is None else 1
        check = _FILTERS.get(name)

        def bounded(*args: Any, **kwargs: Any) -> Any:
            budget = self.budget
            if len(args) > place:
                value = args[place]
                if hasattr(value, "__next__"):
                    value = budget.listed(value)
                    args = (*args[:place], value, *args[place + 1 :])
                if check is not None:
                    check(self, value, *args[place + 1 :], **kwargs)
            made = function(*args, **kwargs)
            # Lists that make themselves item by item are always true in an `if`, and stay so.
            return iter(budget.listed(made)) if hasattr(made, "__next__") else budget.made(made)

        return update_wrapper(bounded, function)


class _Namespace(jinja2.utils.Namespace):
    """Jinja's own writes out all that it holds, and may hold itself."""

    def __repr__(self) -> str:
        return "<Namespace>"


class _Formatter(SandboxedFormatter):
    def format_field(self, value: Any, format_spec: str) -> Any:
        if _WIDE_FIELD.search(format_spec):
            raise TooMuchError("formats text too wide")
        return super().format_field(value, format_spec)


# A width that is given apart, or has four digits. A name in parentheses may stand before it.
_WIDE = re.compile(r"%(?:\(.*\))?[-#0+ .\d]*?(?:\*|\d{4})", re.DOTALL)
_WIDE_FIELD = re.compile(r"\d{4}")


_TEXT_METHODS = frozenset({
    "capitalize", "casefold", "center", "count", "endswith", "find", "format", "index", "isalnum", "isalpha",
    "isascii", "isdecimal", "isdigit", "isidentifier", "islower", "isnumeric", "isprintable", "isspace",
    "istitle", "isupper", "join", "ljust", "lower", "lstrip", "partition", "removeprefix", "removesuffix",
    "replace", "rfind", "rindex", "rjust", "rpartition", "rsplit", "rstrip", "split", "splitlines", "startswith",
    "strip", "swapcase", "title", "upper", "zfill",
})  # fmt: skip

# What a template may look up of Python's own types. Others have nothing that a text is made of.
_ATTRIBUTES: dict[type, frozenset[str]] = {
    str: _TEXT_METHODS,
    dict: frozenset({"get", "items", "keys", "values"}),
    list: frozenset({"count", "index"}),
    tuple: frozenset({"count", "index", "grouper", "list"}),
}


# Checks, each before the text is made.


def _joined(environment: BoundedEnvironment, between: str, items: Any) -> list[Any]:
    budget = environment.budget
    if isinstance(items, str):
        budget.charge(_A_PIECE * len(items))
    found = budget.listed(iter(items))
    budget.charge(getsizeof(between) * len(found) + budget.measure(found)[0])
    return found


def _replaced(environment: BoundedEnvironment, text: str, old: str, new: str) -> None:
    environment.budget.charge(getsizeof(text) + text.count(old) * getsizeof(new) if new else getsizeof(text))


def _split(environment: BoundedEnvironment, text: str, between: Any) -> None:
    pieces = text.count(between) + 1 if between else len(text) // 2
    environment.budget.charge(_A_PIECE * pieces)


def _padded(environment: BoundedEnvironment, width: Any) -> None:
    environment.budget.charge(4 * max(0, int(width)))


def _short(pattern: Any) -> None:
    if isinstance(pattern, str) and len(pattern) > _LONGEST_PATTERN:
        raise TooMuchError(f"looks for more than {_LONGEST_PATTERN} characters at once")


# Methods of texts that can make much of little, or take long.


def _join(environment: BoundedEnvironment, text: str, items: Any) -> str:
    return text.join(_joined(environment, text, items))


def _replace(environment: BoundedEnvironment, text: str, old: str, new: str, count: int = -1) -> str:
    _replaced(environment, text, old, new)
    return text.replace(old, new, count)


def _splitting(name: str) -> Callable[..., list[str]]:
    def split(environment: BoundedEnvironment, text: str, sep: str | None = None, maxsplit: int = -1) -> list[str]:
        _short(sep)
        _split(environment, text, sep)
        return cast("list[str]", getattr(text, name)(sep, maxsplit))

    return split


def _split_lines(environment: BoundedEnvironment, text: str, keepends: bool = False) -> list[str]:
    _split(environment, text, None)
    return text.splitlines(keepends)


def _padding(name: str) -> Callable[..., str]:
    def pad(environment: BoundedEnvironment, text: str, width: int, *fill: str) -> str:
        _padded(environment, width)
        return cast(str, getattr(text, name)(width, *fill))

    return pad


def _looking(name: str) -> Callable[..., Any]:
    """Methods that may compare all of what they look for at every letter."""

    def look(environment: BoundedEnvironment, text: str, *args: Any) -> Any:
        for pattern in args[:1]:
            _short(pattern)
        return getattr(text, name)(*args)

    return look


_METHODS: dict[str, Callable[..., Any]] = {
    "join": _join,
    "replace": _replace,
    "split": _splitting("split"),
    "rsplit": _splitting("rsplit"),
    "splitlines": _split_lines,
    **{name: _padding(name) for name in ("center", "ljust", "rjust", "zfill")},
    **{name: _looking(name) for name in ("rfind", "rindex", "rpartition", "strip", "lstrip", "rstrip")},
}


# Filters that make a text for people, or a web page, out of a text: no prompt needs them, and they can take long.
_NO_FILTERS = ("pprint", "striptags", "urlize", "wordwrap", "xmlattr")


def _pieces(environment: BoundedEnvironment, value: Any, *_: Any, **__: Any) -> None:
    if isinstance(value, str):
        environment.budget.charge(_A_PIECE * len(value))


def _check_join(environment: BoundedEnvironment, value: Any, d: Any = "", attribute: Any = None) -> None:
    items = _joined(environment, str(d), value)
    if attribute is not None:  # may be a large text in each, the same in all
        size = sum(environment.budget.measure(item)[0] for item in items)
        environment.budget.charge(size)


def _check_replace(environment: BoundedEnvironment, s: Any, old: Any, new: Any, count: Any = None) -> None:
    _replaced(environment, str(s), str(old), str(new))


def _check_center(environment: BoundedEnvironment, value: Any, width: Any = 80) -> None:
    _padded(environment, width)


def _check_indent(environment: BoundedEnvironment, s: Any, width: Any = 4, *_: Any, **__: Any) -> None:
    wide = len(width) if isinstance(width, str) else int(width)
    _padded(environment, wide * (str(s).count("\n") + 2) if wide > 0 else 0)


def _check_format(environment: BoundedEnvironment, value: Any, *args: Any, **kwargs: Any) -> None:
    environment._check_format(str(value), "%", (args, kwargs))


def _check_round(environment: BoundedEnvironment, value: Any, precision: Any = 0, method: Any = "common") -> None:
    if abs(precision) > 100:
        raise TooMuchError("rounds to more than 100 digits")


def _check_trim(environment: BoundedEnvironment, value: Any, chars: Any = None) -> None:
    _short(chars)


def _check_count(environment: BoundedEnvironment, value: Any, count: Any, fill_with: Any = None) -> None:
    environment.budget.charge((environment.budget.measure(fill_with)[0] + _CONTAINER) * abs(int(count)))
    _pieces(environment, value)


def _check_sum(environment: BoundedEnvironment, iterable: Any, attribute: Any = None, start: Any = 0) -> None:
    if not isinstance(start, int | float):
        raise TooMuchError("adds up what is no number")


def _check_tojson(
    environment: BoundedEnvironment, value: Any, ensure_ascii: Any = False, indent: Any = None, separators: Any = None,
    sort_keys: Any = False,
) -> None:  # fmt: skip
    size, depth = environment.budget.measure(value)
    wide = len(indent) if isinstance(indent, str) else indent or 0
    wide = max(0, wide) * depth + sum(map(len, separators or ()))
    environment.budget.charge(size * (16 + wide) // 16)


_FILTERS: dict[str, Callable[..., None]] = {
    "join": _check_join,
    "replace": _check_replace,
    "center": _check_center,
    "indent": _check_indent,
    "format": _check_format,
    "round": _check_round,
    "trim": _check_trim,
    "batch": _check_count,
    "slice": _check_count,
    "sum": _check_sum,
    "tojson": _check_tojson,
    "truncate": _pieces,
    **dict.fromkeys(("list", "sort", "unique", "groupby", "title", "wordcount", "map", "select", "reject"), _pieces),
}

# Names of filters that no template spells by chance; spelled on purpose they do no harm.
_STEP, _MADE, _LOOK, _TEXT = "(step)", "(made)", "(look)", "(text)"

_Node = TypeVar("_Node", bound=nodes.Node)


class _Counted(NodeTransformer):
    """Puts the counting into a template: a step into every loop, a measure around all that makes a value."""

    def __init__(self, environment: BoundedEnvironment) -> None:
        self._environment = environment

    def _through(self, name: str, node: nodes.Expr) -> nodes.Expr:
        return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno, environment=self._environment)

    def _step(self, node: nodes.Node) -> nodes.Expr:
        const = nodes.Const(True, lineno=node.lineno, environment=self._environment)
        return self._through(_STEP, const)

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        step = nodes.ExprStmt(self._step(node), lineno=node.lineno, environment=self._environment)
        node.body.insert(0, step)
        if node.test is not None:
            node.test = nodes.And(self._step(node), node.test, lineno=node.lineno, environment=self._environment)
        return node

    def _container(self, node: nodes.Expr) -> nodes.Node:
        self.generic_visit(node)
        if getattr(node, "ctx", "load") != "load" or all(isinstance(n, nodes.Const) for n in node.iter_child_nodes()):
            return node
        return self._through(_MADE, node)

    def visit_List(self, node: nodes.List) -> nodes.Node:  # noqa: N802
        return self._container(node)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802
        return self._container(node)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return self._through(_MADE, node) if node.items else node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return self._through(_MADE, node) if isinstance(node.arg, nodes.Slice) else node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.nodes = [n if isinstance(n, nodes.Const) else self._through(_TEXT, n) for n in node.nodes]
        return self._through(_MADE, node)

    def visit_Operand(self, node: nodes.Operand) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        if node.op in ("in", "notin") and not isinstance(node.expr, nodes.Const | nodes.List | nodes.Tuple):
            node.expr = self._through(_LOOK, node.expr)
        return node
