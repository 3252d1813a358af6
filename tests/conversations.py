"""Messages of conversations, and what each chat template makes of them: ours, and transformers' rendering.

Not a test itself.
"""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

from transformers.utils.chat_template_utils import render_jinja_template

from checkpoints import raw_config
from gemma4_mlx.config import Config
from gemma4_mlx.processing import Processor
from gemma4_mlx.processing.chat import ChatTemplate
from gemma4_mlx.processing.tokenizer import Tokenizer
from processing_reference import tokenizer_folder
from published_templates import TEMPLATES

USER = {"role": "user", "content": "How warm is it?"}
MORE = {"role": "user", "content": "And in Rome?"}
ANSWER = {"role": "assistant", "content": "Warm."}
SYSTEM = {"role": "system", "content": "Be brief."}


def call(name: str = "look", arguments: Any = None, identifier: str | None = "c1") -> dict[str, Any]:
    named = {} if identifier is None else {"id": identifier}
    return {
        **named,
        "type": "function",
        "function": {"name": name, "arguments": {} if arguments is None else arguments},
    }


def calling(*calls: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": "", **more, "tool_calls": list(calls)}


def result(content: Any, identifier: str | None = "c1", **more: Any) -> dict[str, Any]:
    named = {} if identifier is None else {"tool_call_id": identifier}
    return {"role": "tool", **named, "content": content, **more}


def in_place(message: dict[str, Any], *responses: Any) -> dict[str, Any]:
    names = [of["function"]["name"] for of in message["tool_calls"]]
    given = [{"name": n, "response": response} for n, response in zip(names, responses, strict=True)]
    return {**message, "tool_responses": given}


@cache
def processor(template: str) -> Processor:
    tokenizer = Tokenizer.from_folder(tokenizer_folder())
    return Processor(tokenizer, config(), ChatTemplate(TEMPLATES[template]))


def config() -> Config:
    raw = raw_config("e2b")
    raw["text_config"]["max_position_embeddings"] = 131072
    return Config.from_dict(raw)


def theirs(template: str, messages: list[Any], tools: Any = None, thinking: bool = False) -> str:
    (rendered,), _ = render_jinja_template(
        conversations=[copy.deepcopy(messages)],
        tools=tools,
        chat_template=TEMPLATES[template],
        add_generation_prompt=True,
        enable_thinking=thinking,
        bos_token="<bos>",
    )
    return rendered


def written(source: str) -> Processor:
    return Processor(Tokenizer.from_folder(tokenizer_folder()), config(), ChatTemplate(source))
