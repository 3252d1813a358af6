"""What a person sees who asks Python itself: `dir`, `help`, `str`, a notebook."""

from __future__ import annotations

import pydoc

import pytest

import gemma4_mlx as g4
from scripted_model import ScriptedModel


@pytest.fixture(scope="module")
def demo():
    return g4.load("demo")


def test_dir_lists_what_a_script_uses():
    assert {"load", "generate", "Chat", "run_tools", "Generation", "ToolCall", "CachedSource"} <= set(dir(g4))
    for name in dir(g4):
        assert getattr(g4, name).__doc__, name


def test_help_of_the_model_is_about_the_model_and_not_about_what_it_stands_on(demo):
    model, _ = demo
    told = pydoc.render_doc(g4.Gemma4, renderer=pydoc.plaintext)
    assert "make_cache(self" in told
    assert "encode_images" in told
    assert "load_weights" not in told
    assert len(told.splitlines()) < 150
    assert {"config", "layers", "make_cache", "language_model", "context_length"} <= set(dir(model))
    assert len([name for name in dir(model) if not name.startswith("_")]) < 30
    assert model.parameters()  # not shown, and there


def test_a_class_that_stands_on_the_model_shows_its_own_names_and_the_models():
    class Mine(g4.Gemma4):
        def mine(self) -> None: ...

    assert {"mine", "make_cache"} <= set(dir(Mine))
    assert "load_weights" not in dir(Mine)


def test_an_answer_prints_as_its_text_and_is_one_short_line_to_a_person_who_looks_at_it(demo):
    out = g4.generate(*demo, "Hello", max_tokens=8, temperature=0)
    assert f"{out}" == out.text
    assert repr(out) == (
        f"Generation(text={out.text!r}, thought='', tool_calls=[], finish_reason='length', unread_calls=[])"
    )


def test_a_notebook_shows_an_answer_formatted_json_as_code_and_calls(demo):
    model, processor = demo
    texts = "It is **red**.", "Look.<|tool_call>call:look{at:3}<tool_call|>"
    scripted = ScriptedModel(processor, model.config, *texts)
    assert g4.generate(scripted, processor, "Hi", temperature=0)._repr_markdown_() == "It is **red**."
    look = {"name": "look", "parameters": {"properties": {"at": {"type": "integer"}}}}
    called = g4.generate(scripted, processor, "Hi", temperature=0, tools=[look])
    assert called._repr_markdown_() == 'Look.\n\n```json\n{"look": {"at": 3}}\n```'
    out = g4.generate(model, processor, "Hi", schema={"const": 3}, temperature=0)
    assert out._repr_markdown_() == "```json\n3\n```"
