"""`doctor --self-test`: right here, and wrong as soon as one kernel is; the faults are put in by these tests."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from gemma4_mlx.app.doctor.self_test import finding

from command_line import run
from gemma4_mlx.self_test import Check, attention, builtin, decoding, layers, sound
from gemma4_mlx.self_test.check import Item, Outcome, difference
from gemma4_mlx.self_test.models import copied, float32_twin, random_model
from gemma4_mlx.self_test.run import checked

Fault = Callable[[pytest.MonkeyPatch], None]


def named(items: Iterable[Item], word: str) -> list[Check]:
    """The checks with a word in their names, made."""
    return list(checked((item for item in items if word in item.name), "test"))


def wrong(name: str, when: Callable[..., bool], where: Any = mx) -> Fault:
    """A function of MLX's of which, on some calls, every other number of a row is two parts in a hundred off.

    Not all of them: the norm that follows would undo that.
    """

    def put_in(monkeypatch: pytest.MonkeyPatch) -> None:
        right = getattr(where, name)

        def broken(*args: Any, **kwargs: Any) -> Any:
            result = right(*args, **kwargs)
            off = 1 + 0.02 * (mx.arange(result.shape[-1]) % 2).astype(result.dtype)
            return result * off if when(*args, **kwargs) else result

        monkeypatch.setattr(where, name, broken)

    return put_in


@pytest.mark.parametrize(
    ("room", "word", "fault"),
    [
        (builtin, "picture and sound, float16", wrong("rms_norm", lambda x, *_: x.dtype == mx.float16, mx.fast)),
        (
            builtin,
            "picture and sound, float16",
            wrong("scaled_dot_product_attention", lambda q, *_, **__: q.dtype == mx.float16, mx.fast),
        ),
        (builtin, "picture and sound, 4 bits", wrong("quantized_matmul", lambda *_, bits, **__: bits == 4)),
        (builtin, "picture and sound, 8 bits", wrong("quantized_matmul", lambda *_, bits, **__: bits == 8)),
        (decoding, "compiled", wrong("slice_update", lambda *_, **__: True)),
        (
            decoding,
            "head size 512",
            wrong("scaled_dot_product_attention", lambda *_, mask=None, **__: mask is not None, mx.fast),
        ),
        (
            decoding,
            "head size 256",
            wrong(
                "scaled_dot_product_attention",
                lambda q, k, *_, mask=None, **__: mask is None and q.dtype == mx.float16,
                mx.fast,
            ),
        ),
        (sound, "in a stream", wrong("concatenate", lambda arrays, *_, **__: len(arrays) == 2 and arrays[0].ndim == 3)),
    ],
    ids=lambda value: value if isinstance(value, str) else getattr(value, "__name__", "").rpartition(".")[2],
)
def test_a_wrong_kernel_is_found_and_the_right_one_passes(room, word, fault, monkeypatch):
    working = mx.float16 if word == "head size 256" else mx.float32
    assert all(check.passed for check in named(room.items(working), word))
    fault(monkeypatch)
    found = named(room.items(working), word)
    assert found
    assert not any(check.passed for check in found)


@pytest.mark.parametrize(
    ("word", "fault"),
    [
        ("26b, 8 bits", wrong("gather_qmm", lambda *_, sorted_indices, **__: sorted_indices)),
        ("26b, 8 bits", wrong("gather_qmm", lambda *_, sorted_indices, **__: not sorted_indices)),
    ],
    ids=["sorted", "unsorted"],
)
def test_wrong_experts_are_found_sorted_or_not(word, fault, monkeypatch):
    model = random_model("26b", hidden_size=256, intermediate_size=256)
    monkeypatch.setattr(layers, "SIZES", {"26b": {}})
    monkeypatch.setattr(layers, "random_model", lambda _: model)
    assert all(check.passed for check in named(layers.items(mx.float32), word))
    fault(monkeypatch)
    assert [check.passed for check in named(layers.items(mx.float32), word)] == [False]


def test_one_layer_of_each_kind_of_a_real_size_is_right_here():
    (check,) = islice(checked(layers.items(mx.float32), "layers"), 1)
    assert (check.name, check.passed) == ("e2b, float32 (MLP cut)", True)


def test_the_twin_of_a_packed_model_holds_what_the_packed_numbers_mean():
    model = random_model("e4b", hidden_size=128, intermediate_size=64)
    packed = copied(model, mx.bfloat16, {"group_size": 32, "bits": 4, "mode": "affine"})
    projection = packed.layers[0].self_attn.q_proj
    right = mx.dequantize(projection.weight, projection.scales, projection.biases, 32, 4)
    assert mx.array_equal(float32_twin(packed).layers[0].self_attn.q_proj.weight, right.astype(mx.float32))


def test_a_check_that_raises_or_gives_no_numbers_has_failed_and_the_others_go_on():
    def fails() -> Outcome:
        raise RuntimeError("[metal::malloc] Attempting to allocate\n9 bytes")

    items = [
        Item("a", "raises", fails),
        Item(
            "a", "gives no numbers", lambda: Outcome(difference(mx.array([1.0, 2.0]), mx.array([1.0, float("nan")])), 1)
        ),
        Item("a", "is right", lambda: Outcome(0.5, 1)),
    ]
    found = list(checked(items, "a"))
    assert [check.passed for check in found] == [False, False, True]
    assert found[0].note == "RuntimeError: [metal::malloc] Attempting to allocate 9 bytes"
    json.dumps([vars(check) for check in found], allow_nan=False)


def test_checks_that_cannot_be_set_up_are_a_failure_of_their_own():
    def items():
        raise OSError("gone")
        yield

    (check,) = checked(items(), "sound")
    assert (check.group, check.name, check.passed) == ("sound", "setting up", False)


def test_results_of_different_shapes_or_without_any_spread_are_never_taken_for_equal():
    assert difference(mx.zeros((2, 3)), mx.zeros((2, 3))) == np.inf
    assert difference(mx.arange(6.0), mx.arange(6.0).reshape(2, 3)) == np.inf


def test_attention_without_a_fused_kernel_is_told_and_fails_nothing():
    (check,) = islice(checked(attention.items(mx.float32), "attention"), 1)
    assert check.passed is None
    assert finding(check).status == "ok"
    assert "fused" in finding(check).text


def test_a_report_replaces_nothing_and_a_file_needs_its_options(tmp_path):
    there = tmp_path / "there.json"
    there.write_text("mine")
    refused = run("doctor", "--self-test", "--json", str(there))
    assert (refused.returncode, refused.stderr) == (1, f"error: {there} is there already: name another file\n")
    assert there.read_text() == "mine"
    misused = run("doctor", str(tmp_path / "new.json"))
    assert misused.returncode == 2
    assert "--self-test --json FILE" in misused.stderr
