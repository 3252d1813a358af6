"""A checkpoint's chat template: messages → the text of a prompt, with one placeholder per picture, sound and video.

Templates come from the Hub and are other people's code: they run in Jinja's sandbox, see plain values only, and have a
bounded time and memory (`template_limits`).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser

from ..errors import CheckpointError, InputError
from .sources import reason
from .template_limits import BoundedEnvironment, TooMuchError
from .tokenizer import read_json

_MOST_BYTES = 1 << 20  # of chat_template.jinja; Gemma's have 20 KB


class ChatTemplate:
    """A compiled chat template, rendered the way transformers does (block trimming, filters, names it can use).

    Raises:
        CheckpointError: the template is not valid Jinja, or takes too much time or memory to compile.
    """

    def __init__(self, source: str) -> None:
        self._environment = BoundedEnvironment([_GenerationBlock, jinja2.ext.loopcontrols])
        self._environment.set_filters({"tojson": _to_json})
        self._environment.globals["raise_exception"] = _raise_exception
        self._environment.globals["strftime_now"] = _strftime_now
        self._one_at_a_time = threading.Lock()
        try:
            self._template = self._environment.compiled(source)
        except TooMuchError as error:
            raise _too_much(error) from error
        except (SyntaxError, *_FAILURES) as error:  # also Python's own compiler's, of what is nested too deep
            raise CheckpointError(f"the chat template is damaged ({_short(error)}): download it again") from error

    @classmethod
    def from_folder(cls, folder: Path) -> ChatTemplate | None:
        """The template of a checkpoint: chat_template.jinja, chat_template.json or tokenizer_config.json; None without.

        Raises:
            CheckpointError: a file that should hold it is damaged.
        """
        path = folder / "chat_template.jinja"
        if path.is_file():
            try:
                with path.open("rb") as stream:
                    content = stream.read(_MOST_BYTES + 1)
                if len(content) > _MOST_BYTES:
                    raise CheckpointError(f"{path} is larger than {_MOST_BYTES >> 20} MiB: download it again")
                return cls(content.decode("utf-8"))
            except (OSError, UnicodeDecodeError) as error:
                raise CheckpointError(f"{path} is damaged ({reason(error)}): download it again") from error
        for name in ("chat_template.json", "tokenizer_config.json"):
            source = read_json(folder / name).get("chat_template")
            if isinstance(source, list):  # several, by name
                source = {entry.get("name"): entry.get("template") for entry in source}.get("default")
            if isinstance(source, str):
                return cls(source)
        return None

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None,
        add_generation_prompt: bool,
        enable_thinking: bool,
        special_tokens: Mapping[str, str],
    ) -> str:
        """The prompt's text.

        Args:
            special_tokens: control tokens by name (`bos_token` …), which templates write.

        Raises:
            InputError: the template refuses these messages, or cannot cope with them.
            CheckpointError: it takes far more time or memory than any prompt needs.
        """
        given = dict(
            **special_tokens,
            messages=messages,
            tools=tools,
            documents=None,
            add_generation_prompt=add_generation_prompt,
            enable_thinking=enable_thinking,
        )
        try:
            with self._one_at_a_time:
                self._environment.begin(len(messages), given)
                return self._environment.concat(self._template.generate(given))
        except TooMuchError as error:
            raise _too_much(error) from error
        except _Refused as error:
            raise InputError(f"the chat template refuses these messages: {_short(error)}") from error
        # Templates fail like any program: a missing key, a None where text was expected, an object without end.
        except _FAILURES as error:
            raise InputError(
                f"the chat template cannot render these messages ({_short(error)}): check their content"
            ) from error

    # Published templates differ in what they read, and leave out in silence what they do not. So they are tried, as
    # llama.cpp does (`caps` in common/jinja).

    @cached_property
    def reads_results_in_place(self) -> bool:
        """Whether it shows `tool_responses` of an assistant's message, an object as well as a text."""
        call = {"type": "function", "function": {"name": "look", "arguments": {}}}
        results = [{"name": "look", "response": {"key": "first result"}}, {"name": "look", "response": "second result"}]
        answer = {"role": "assistant", "content": "", "tool_calls": [call, call], "tool_responses": results}
        return self._shows([{"role": "user", "content": "Look"}, answer], ["first result", "second result"])

    @cached_property
    def reads_system_parts(self) -> bool:
        """Whether it shows the parts of a system message, rather than take the list for a text."""
        parts = [{"type": "text", "text": "first part"}, {"type": "text", "text": "second part"}]
        messages: list[dict[str, Any]] = [{"role": "system", "content": parts}, {"role": "user", "content": "Look"}]
        return self._shows(messages, ["first part", "second part"], but_not="'type'")

    def _shows(self, messages: list[dict[str, Any]], words: list[str], but_not: str | None = None) -> bool:
        try:
            shown = self.render(
                messages, tools=None, add_generation_prompt=True, enable_thinking=False, special_tokens={}
            )
        except InputError:
            return False
        return all(word in shown for word in words) and (but_not is None or but_not not in shown)


_LONGEST_REASON = 300
_FAILURES = (
    jinja2.TemplateError,
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
    MemoryError,
)


def _too_much(error: TooMuchError) -> CheckpointError:
    return CheckpointError(f"the chat template {error}: use one from the model's makers")


def _short(error: Exception) -> str:
    """What went wrong, in a length that fits into a line. A template may say anything, of any length."""
    said = reason(error)
    return said if len(said) <= _LONGEST_REASON else f"{said[:_LONGEST_REASON]}…"


class _Refused(Exception):  # noqa: N818  what a template says by raise_exception
    """A template's own complaint."""


class _GenerationBlock(jinja2.ext.Extension):
    """`{% generation %}…{% endgeneration %}`: marks what a model is trained on; here it is just its body."""

    tags = {"generation"}  # noqa: RUF012  the name and form Jinja asks for

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise_exception(message: str) -> None:
    raise _Refused(message)


def _strftime_now(form: str) -> str:
    if len(form) > 100:
        raise TooMuchError("formats the time too long")
    return datetime.now().strftime(form)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own `tojson` escapes HTML, which would put `\\u003c` into prompts."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
