"""A first step that waits for a GPU's kernels is told, and no other."""

from __future__ import annotations

import time

import pytest
from gemma4_mlx.app import gpu
from gemma4_mlx.app.chat.model_thread import ModelThread, ThreadedModel
from gemma4_mlx.app.gpu import told_if_slow

from command_line import checkpoint


@pytest.mark.parametrize(
    ("backend", "seconds", "told"), [("metal", 0.2, 1), ("metal", 0.0, 0), ("cuda", 0.2, 1), ("cpu", 0.2, 0)]
)
def test_a_person_is_told_once_where_the_first_step_takes_long_on_a_gpu(backend, seconds, told, monkeypatch):
    monkeypatch.setattr(gpu, "backend", lambda: backend)
    monkeypatch.setattr(gpu, "_SECONDS_BEFORE_A_WORD", 0.1)
    words = []
    with told_if_slow(lambda: words.append(1)):
        time.sleep(seconds)
    time.sleep(0.15)
    assert len(words) == told


def test_a_step_that_fails_is_not_told_of_later(monkeypatch):
    monkeypatch.setattr(gpu, "backend", lambda: "metal")
    monkeypatch.setattr(gpu, "_SECONDS_BEFORE_A_WORD", 0.05)
    words = []
    with pytest.raises(RuntimeError), told_if_slow(lambda: words.append(1)):
        raise RuntimeError("[METAL] out of memory")
    time.sleep(0.1)
    assert words == []


def test_the_chat_says_that_it_prepares_the_gpu_while_somebody_waits(monkeypatch):
    monkeypatch.setattr(gpu, "backend", lambda: "metal")
    monkeypatch.setattr(gpu, "_SECONDS_BEFORE_A_WORD", 0.0)
    from gemma4_mlx import generation

    step = generation.generate_tokens
    monkeypatch.setattr("gemma4_mlx.generate_tokens", lambda *a, **n: time.sleep(0.7) or step(*a, **n), raising=False)
    model = ThreadedModel(ModelThread(), "tiny", checkpoint())
    states = []
    model.wait(states.append)
    assert states[-1] == "preparing the GPU, once"
    assert model.loaded
    assert model.thread.close()
