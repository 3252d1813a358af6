"""A canonical conversation and a checkpoint's chat template → the text of a prompt, and the media in its order.

What a template does not read is given to it in a way that it does: all of a conversation is in the prompt, whoever
wrote the template.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

from ..errors import InputError
from .chat import ChatTemplate
from .content import MEDIA, Medium, Part, media_of
from .messages import Message
from .stand_ins import MEDIA as STAND_INS
from .stand_ins import Piece, StandIns
from .tokenizer import Tokenizer

_NOUNS = {"image": "picture", "audio": "sound", "video": "video"}


class PromptWriter:
    """Writes the prompts of one checkpoint."""

    def __init__(self, template: ChatTemplate, tokenizer: Tokenizer) -> None:
        self._template = template
        self._special_tokens = tokenizer.special_tokens
        self._stand_ins = StandIns(tokenizer)

    def write(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] | None,
        add_generation_prompt: bool,
        thinking: bool,
    ) -> list[Piece]:
        """The prompt's text in pieces, one for each medium among them.

        Args:
            messages: from `read_messages`.
            tools: from `read_tools`.

        Raises:
            InputError: the template refuses these messages, cannot cope with them, or leaves media out.
        """
        given = Counter(medium.kind for medium in media_in(messages))
        # Old templates show no media at all, and none shows those of a system message.
        for media_as_text in (False, True):
            rendered = self._template.render(
                [plain for message in messages for plain in self._plain(message, media_as_text)],
                tools=self._stand_ins.hidden(list(tools)) if tools else None,
                add_generation_prompt=add_generation_prompt,
                enable_thinking=thinking,
                special_tokens=self._special_tokens,
            )
            pieces = self._stand_ins.revealed(rendered)
            found = Counter(piece.medium for piece in pieces if piece.medium is not None)
            if found == given:
                return pieces
        kind = next(kind for kind in MEDIA if found[kind] != given[kind])
        raise InputError(
            f"the chat template has room for {found[kind]} of {given[kind]} {_NOUNS[kind]}(s): "
            "put them into a user message"
        )

    def _plain(self, message: Message, media_as_text: bool) -> list[dict[str, Any]]:
        """A message as this template reads it: plain JSON, all of its strings hidden, with stand-ins for media."""
        plain: dict[str, Any] = {"role": message["role"], "content": self._content(message, media_as_text)}
        if thought := message.get("reasoning_content"):
            plain["reasoning_content"] = self._stand_ins.hidden(thought)
        calls = self._stand_ins.hidden(message.get("tool_calls", []))
        results = message.get("tool_responses", [])
        if not calls and not results:
            return [plain]
        if not self._template.reads_results_in_place:
            words = [{"role": "assistant", "content": plain["content"]}] if plain["content"] else []
            calling = {**plain, "content": self._stand_ins.hidden(message.get("before_calls", "")), "tool_calls": calls}
            return [calling, *(self._as_message(*of) for of in zip_longest(results, calls[: len(results)])), *words]
        if before := message.get("before_calls"):
            first = message["tool_calls"][0]["function"]
            calls[0]["function"]["name"] = self._stand_ins.before_call(before, first["name"])
        given = {"tool_calls": calls, "tool_responses": [self._in_place(result) for result in results]}
        return [plain | {key: value for key, value in given.items() if value}]

    def _content(self, message: Message, media_as_text: bool) -> str | list[Part]:
        content = message["content"]
        if isinstance(content, str):
            hidden: str = self._stand_ins.hidden(content)
            return hidden
        parts = [self._part(part, media_as_text) for part in content]
        if message["role"] == "system" and not self._template.reads_system_parts:
            return " ".join(part.get("text", "") for part in parts)
        return parts

    def _part(self, part: Part, media_as_text: bool) -> Part:
        kind = part["type"]
        if kind == "text":
            return {"type": "text", "text": self._stand_ins.hidden(part["text"])}
        if media_as_text:
            return {"type": "text", "text": STAND_INS[kind]}
        # Templates only ask whether the medium is there; the sandbox should not get hold of the object itself.
        return {"type": kind, kind: kind}

    def _in_place(self, result: Mapping[str, Any]) -> dict[str, Any]:
        # Every template writes a result's name; a medium has no place of its own in a result.
        return {
            "name": self._stand_ins.hidden(result["name"]) + _stand_ins_of(result),
            "response": self._stand_ins.hidden(result["response"]),
        }

    def _as_message(self, result: Mapping[str, Any], call: Mapping[str, Any] | None) -> dict[str, Any]:
        """A result for templates that know nothing but messages with texts."""
        response = result["response"]
        text = response if isinstance(response, str) else json.dumps(response, ensure_ascii=False)
        identifier = {"tool_call_id": call["id"]} if call and "id" in call else {}
        content = self._stand_ins.hidden(text) + _stand_ins_of(result)
        return {"role": "tool", **identifier, "name": self._stand_ins.hidden(result["name"]), "content": content}


def _stand_ins_of(result: Mapping[str, Any]) -> str:
    return "".join(STAND_INS[medium.kind] for medium in result["media"])


def media_in(messages: Sequence[Message]) -> list[Medium]:
    """All pictures, sounds and videos of canonical messages, in the order of their placeholders."""
    found: list[Medium] = []
    for message in messages:
        for result in message.get("tool_responses", []):
            found += result["media"]
        found += media_of(message["content"])
    return found
