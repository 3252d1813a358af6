"""Bounds on what a chat template may do: time, memory, and what it can reach. `chat` renders with it.

A template is a stranger's program. Jinja's sandbox keeps it from files and from Python; it does not keep it from loops
without end or from `'a' * 10**10`. Here every step is counted, and every value that a template makes is measured before
it is there or, where it can only be a little larger than what it is made from, right after.

`template_budget` counts, `template_checks` knows the methods and filters, `template_counting` has the template call us.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial, update_wrapper
from sys import getsizeof
from typing import Any, cast

import jinja2
import jinja2.ext
import jinja2.runtime
import jinja2.utils
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedFormatter
from markupsafe import soft_str

from .template_budget import CONTAINER, LARGE, LONGEST_INTEGER, Budget, TooMuchError
from .template_checks import FILTERS, METHODS, NO_FILTERS, check_format
from .template_counting import LOOK, MADE, STEP, TEXT, Counted

LONGEST_SOURCE = 128 << 10
"""Characters. The makers' templates have 19,000, the longest known of other models about 30,000."""


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, for one template, with a budget.

    Attributes:
        budget: of the rendering that goes on. One at a time: `ChatTemplate` sees to that.
    """

    # Intercepted operators are not worked out while compiling either.
    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, extensions: list[type[jinja2.ext.Extension]]) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=extensions, finalize=self._shown)
        self.budget = Budget()
        del self.globals["lipsum"]
        self.globals["namespace"] = _Namespace
        for name in NO_FILTERS:
            del self.filters[name]
        self.set_filters(self.filters)
        self.filters[STEP] = self._step
        self.filters[MADE] = self._made
        self.filters[LOOK] = self._looked
        self.filters[TEXT] = self._text

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
        tree = Counted(self).visit(self.parse(source))
        return self.from_string(tree)

    def begin(self, messages: int, *given: Any) -> None:
        """Begin a rendering.

        Args:
            messages: their number.
            given: all that the template will see.
        """
        self.budget = Budget(messages)
        self.budget.give(*given)

    # What the compiled template calls.

    @jinja2.pass_context  # or it would be worked out while compiling
    def _step(self, context: Any, value: Any) -> Any:
        self.budget.step()
        return value

    def _made(self, value: Any) -> Any:
        return self.budget.made(value)

    def _looked(self, value: Any) -> Any:
        if getsizeof(value) > LARGE:
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
            if size > self.budget.largest + CONTAINER * len(found):
                raise TooMuchError("takes too much memory")
            found.append(piece)
        return cast(str, self.budget.made("".join(found)))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        budget = self.budget
        if operator == "+":
            # A list grows by what it is added to, so it is there before it is measured.
            return budget.made(left + right)
        if operator == "%" and isinstance(left, str):
            check_format(self.budget, left, "%", right)
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
            method = METHODS.get(attribute) if kind is str else None
            return getattr(obj, attribute) if method is None else partial(method, self.budget, obj)
        return self._with_method(obj, attribute, super().getattr(obj, attribute))

    def getitem(self, obj: Any, argument: Any) -> Any:
        if type(obj) is dict or type(obj) is list:
            try:
                return obj[argument]
            except (TypeError, LookupError):
                pass
        return self._with_method(obj, argument, super().getitem(obj, argument))

    def _with_method(self, obj: Any, name: Any, value: Any) -> Any:
        guarded = isinstance(obj, str) and isinstance(name, str) and name in METHODS and callable(value)
        return partial(METHODS[name], self.budget, obj) if guarded else value

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
            check_format(self.budget, pattern, "{", (args, kwargs))
            return _Formatter(self).vformat(pattern, args, kwargs)

        return bounded

    @staticmethod
    def _no_such_format(*_: Any, **__: Any) -> str:
        raise TooMuchError("formats text in a way that is not supported here: `format` is")

    def _check_bits(self, bits: int) -> None:
        if bits > LONGEST_INTEGER:
            raise TooMuchError("makes too large a number")

    def _bounded(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A filter that measures what it is given and what it makes."""
        place = 0 if jinja2.utils._PassArg.from_obj(function) is None else 1
        check = FILTERS.get(name)

        def bounded(*args: Any, **kwargs: Any) -> Any:
            budget = self.budget
            if len(args) > place:
                value = args[place]
                if hasattr(value, "__next__"):
                    value = budget.listed(value)
                    args = (*args[:place], value, *args[place + 1 :])
                if check is not None:
                    check(budget, value, *args[place + 1 :], **kwargs)
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
