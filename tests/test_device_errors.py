"""What MLX says of a GPU that fails or has no memory: one kind of error, and no cache it wrote is used again."""

from __future__ import annotations

import contextlib
import pickle
from itertools import islice

import mlx.core as mx
import numpy as np
import pytest
from gemma4_mlx.app.chat.model_thread import ModelThread, ThreadedModel
from hypothesis import given
from hypothesis import strategies as st

import gemma4_mlx as g4
from device_faults import MESSAGES, Device, fill_caches_with_noise, watched
from failing_work import works
from gemma4_mlx.device_errors import device_error, device_errors, failures
from gemma4_mlx.generation import ConversationCache, generate_tokens
from gemma4_mlx.generation.batch import Batch
from gemma4_mlx.generation.decode import Greedy
from gemma4_mlx.generation.prompt_cache import load_prompt_cache, save_prompt_cache
from generation_checkpoints import lively, prompt_of

OUT_OF_MEMORY = MESSAGES[:5]
FAILED = MESSAGES[5:]


@pytest.fixture(scope="module")
def all_works(tmp_path_factory):
    return {work.name: work for work in works(tmp_path_factory.mktemp("works"))}


def raised(error: BaseException) -> BaseException:
    with pytest.raises(type(error) if device_error(error) is None else g4.DeviceError) as caught, device_errors():
        raise error
    return caught.value


@pytest.mark.parametrize("message", OUT_OF_MEMORY)
def test_memory_that_ran_out_says_what_to_do_on_one_line(message):
    error = raised(RuntimeError(message))
    assert type(error) is g4.OutOfMemoryError
    assert isinstance(error, g4.Gemma4Error)
    assert "shorten the prompt" in str(error)
    assert str(error).endswith(f"({message})")
    assert "\n" not in str(error)
    assert (error.needed, error.available) == (None, None)
    assert isinstance(error.__cause__, RuntimeError)


@pytest.mark.parametrize("message", FAILED)
def test_a_gpu_that_failed_says_what_to_do_on_one_line(message):
    error = raised(RuntimeError(message.replace(": ", ":\n", 1)))
    assert type(error) is g4.DeviceError
    assert str(error).endswith(f"({message})")


def test_what_to_do_goes_by_the_code_whatever_language_macos_speaks():
    code = "kIOGPUCommandBufferCallbackErrorOutOfMemory"
    error = raised(RuntimeError(f"[METAL] Command buffer execution failed: Nicht genug Speicher (00000008:{code})"))
    assert isinstance(error, g4.OutOfMemoryError)
    assert "iogpu.wired_limit_mb" in str(error)


def test_memory_of_python_that_ran_out_is_the_same_error_and_still_a_memory_error():
    error = raised(MemoryError())
    assert type(error) is g4.OutOfMemoryError
    assert isinstance(error, MemoryError)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[matmul] Last dimension of first input does not match"),
        RuntimeError("[metal_kernel] No Metal back-end."),
        RuntimeError("the conversation went on with another prompt"),
        RecursionError("[METAL] maximum recursion depth exceeded"),
        ValueError("[malloc] of somebody else"),
        KeyboardInterrupt(),
    ],
)
def test_every_other_error_stays_what_it_is(error):
    before = failures()
    assert raised(error) is error
    assert failures() == before


@given(st.text(), st.integers() | st.none(), st.integers() | st.none())
def test_the_errors_survive_pickling(message, needed, available):
    error = pickle.loads(pickle.dumps(g4.OutOfMemoryError(message, needed, available)))
    assert (str(error), error.needed, error.available) == (message, needed, available)
    assert str(pickle.loads(pickle.dumps(g4.DeviceError(message)))) == message


def test_an_error_is_counted_once_however_many_places_it_passes():
    before, forgotten = failures(), []
    with (
        pytest.raises(g4.DeviceError) as caught,
        device_errors(lambda: forgotten.append("outer")),
        device_errors(lambda: forgotten.append("inner")),
    ):
        raise RuntimeError(MESSAGES[0])
    assert failures() == before + 1
    assert forgotten == ["inner", "outer"]
    assert isinstance(caught.value.__cause__, RuntimeError)


NAMES = (
    "chat, a question",
    "chat, while it is loaded",
    "ask",
    "transcribe a file",
    "live",
    "generate with a cache",
    "another conversation",
    "batch_generate",
    "score",
)


@pytest.mark.parametrize("name", NAMES)
def test_after_an_error_nothing_has_ended_and_nothing_is_wrong(name, all_works):
    """Early and late in it; bench/injected_errors.py does so at all of its evaluations."""
    work, untouched = all_works[name], Device()
    work.play(untouched)
    for late, place in enumerate((2, untouched.count * 3 // 4)):
        device = Device(place, MESSAGES[place % len(MESSAGES)], late=bool(late))
        work.play(device)
        assert device.failed


def test_the_noise_of_these_tests_would_be_seen():
    model, prompt = lively("e2b").model, prompt_of(40)
    right, cache = list(generate_tokens(model, prompt, 10)), model.make_cache()
    going_on = generate_tokens(model, prompt, 10, cache=cache)
    tokens = list(islice(going_on, 3))
    fill_caches_with_noise()
    assert [*tokens, *going_on] != right


@pytest.mark.parametrize("variant", ["e2b", "dense"])
@pytest.mark.parametrize("at", range(1, 12, 2))
def test_a_plain_cache_is_empty_and_reads_the_prompt_anew(variant, at):
    model, prompt = lively(variant).model, prompt_of(60)
    cache = model.make_cache()
    list(generate_tokens(model, prompt, 3, cache=cache))
    held = cache.offset
    with pytest.raises(g4.DeviceError), watched(Device(at, late=True)):
        list(generate_tokens(model, prompt, 12, cache=cache))
    assert held > 0
    assert {layer.offset for layer in cache} == {0}
    assert cache.nbytes == 0
    assert list(generate_tokens(model, prompt, 12, cache=cache)) == list(generate_tokens(model, prompt, 12))


def test_a_batch_has_no_rows_and_takes_new_ones():
    model, batch = lively("e2b").model, Batch(lively("e2b").model)

    def join(prompt):
        cache = model.make_cache()
        batch.join([cache], [Greedy()], model(mx.array([prompt]), cache=cache, last_only=True))

    for seed in range(3):
        join(prompt_of(20 + seed, seed))
    for at in (1, 2):
        with pytest.raises(g4.DeviceError), watched(Device(at, late=True)):
            batch.step()
        assert (batch.rows, batch.lengths, batch.step()) == ([], [], [])
        join(prompt_of(30, seed=at))
        written = [batch.step()[0] for _ in range(5)]
        assert written == list(generate_tokens(model, prompt_of(30, seed=at), 5))


def test_a_stream_of_sound_is_over():
    model = lively("e2b").model
    stream = model.audio_stream()
    stream.feed(np.zeros(16_000, np.float32))
    with pytest.raises(g4.DeviceError), watched(Device(1, late=True)):
        stream.feed(np.ones(16_000, np.float32))
    with pytest.raises(ValueError, match="begin another with model"):
        stream.feed(np.ones(16_000, np.float32))


def test_soft_tokens_and_a_file_of_a_cache_fail_in_the_same_way(tmp_path):
    pair, path = lively("e2b"), tmp_path / "prompt.safetensors"
    cache = pair.model.make_cache()
    list(generate_tokens(pair.model, prompt_of(20), 1, cache=cache))
    for at in (1, 4):
        with watched(Device()) as device, contextlib.suppress(g4.DeviceError):
            device._fails_at = at
            save_prompt_cache(path, cache, pair.model)
        assert device.failed
        assert not list(tmp_path.iterdir()), "nothing half-written"
    with watched(Device()) as counted:
        cache = pair.model.make_cache()
        list(generate_tokens(pair.model, prompt_of(20), 1, cache=cache))
        save_prompt_cache(path, cache, pair.model)
    assert counted.count > 3
    with pytest.raises(g4.DeviceError), watched(Device(1)):
        load_prompt_cache(path, pair.model)
    assert load_prompt_cache(path, pair.model).offset == cache.offset


def test_a_conversation_is_read_anew_after_an_error_elsewhere():
    model, prompt = lively("e2b").model, prompt_of(40)
    cache = ConversationCache(model)
    tokens = list(generate_tokens(model, prompt, 5, cache=cache))
    assert cache.tokens > 40
    with pytest.raises(g4.DeviceError), watched(Device(2)):
        list(generate_tokens(model, prompt_of(20, seed=1), 5))
    more = [*prompt, *tokens, *prompt_of(9, seed=2)]
    assert list(generate_tokens(model, more, 5, cache=cache)) == list(generate_tokens(model, more, 5))
    assert cache.reused == 0
    list(generate_tokens(model, more, 5, cache=cache))
    assert cache.reused > 0, "and from then on it is used again"


def test_a_model_whose_loading_failed_is_loaded_when_it_is_wanted_again():
    from command_line import checkpoint

    model = ThreadedModel(ModelThread(), "tiny", checkpoint())
    with pytest.raises(g4.OutOfMemoryError), watched(Device(1)):
        model.wait()
    assert (model.failure, model.loaded) == (None, False)
    model.wait()
    assert model.loaded
    model.thread.close()
