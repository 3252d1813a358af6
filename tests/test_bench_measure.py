"""Measuring itself: what one process does with a small random model, and how it ends when something goes wrong."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from gemma4_mlx.app.bench.engines import copied, load_engine
from gemma4_mlx.app.bench.measure import MeasuringError, Request, _origin, _packing, measure
from gemma4_mlx.app.bench.report import Plan, Result, report_dict
from gemma4_mlx.app.bench.speed import random_ids

from bench_results import check_report
from command_line import checkpoint
from gemma4_mlx.checkpoint import load_model, read_config
from gemma4_mlx.errors import CheckpointError
from tiny_tokenizer import SPECIAL_IDS

PLAN = Plan((40, 24), (6,), (0, 60), 2)


def measured(request: Request) -> tuple[Result, list[str]]:
    told: list[str] = []
    return measure(request, told.append), told


@pytest.fixture(scope="module")
def of_e2b() -> tuple[Result, list[str]]:
    return measured(Request("gemma4-mlx", "mine", checkpoint(), PLAN, per_layer="disk"))


def test_everything_planned_is_measured_as_often_as_planned(of_e2b: tuple[Result, list[str]]) -> None:
    result, _ = of_e2b
    samples = {m.name: len(m.samples) for m in result.measurements}
    repeated = {f"{kind}{at}" for kind in ("pp40", "pp24", "ttft40", "ttft24", "tg6") for at in ("", "@60")}
    repeated |= {"vision_prepare", "vision_encode", "audio_prepare", "audio_encode", "audio_rtf"}
    assert samples == {
        **dict.fromkeys(repeated, 2),
        **dict.fromkeys(("load", "ttft_cold", "memory_text", "memory_process", "memory_all"), 1),
    }
    assert all(sample > 0 for m in result.measurements for sample in m.samples)
    check_report(report_dict([result]))


def test_each_step_is_told_before_it_is_done(of_e2b: tuple[Result, list[str]]) -> None:
    assert of_e2b[1] == [
        "loading",
        "first token",
        "prompt of 40",
        "prompt of 24",
        "generating 6",
        "filling the context to 60",
        "prompt of 40 at depth 60",
        "prompt of 24 at depth 60",
        "generating 6 at depth 60",
        "a picture",
        "a sound",
    ]


def test_the_weights_are_described(of_e2b: tuple[Result, list[str]]) -> None:
    weights = of_e2b[0].weights
    assert (weights.name, weights.repository, weights.quantization, weights.per_layer) == ("mine", None, None, "disk")
    assert weights.nbytes == (checkpoint() / "model.safetensors").stat().st_size


def test_soft_tokens_and_times_belong_together(of_e2b: tuple[Result, list[str]]) -> None:
    (picture,), (sound,), (factor,) = (of_e2b[0].measured(k) for k in ("vision_encode", "audio_encode", "audio_rtf"))
    (prepared,) = of_e2b[0].measured("audio_prepare")
    assert (picture.tokens, sound.tokens) == (256, 750)
    assert factor.mean == pytest.approx((sound.mean + prepared.mean) / 30)
    speeds = [s for m in of_e2b[0].measured("pp") for s in m.samples]
    times = [s for m in of_e2b[0].measured("ttft") for s in m.samples]
    lengths = [m.tokens for m in of_e2b[0].measured("pp") for _ in m.samples]
    assert np.multiply(speeds, times) == pytest.approx(lengths)


def test_a_size_without_table_and_ears_has_none_of_their_numbers() -> None:
    result, told = measured(Request("gemma4-mlx", "mine", checkpoint("moe"), Plan((8,), (), (0,), 1)))
    assert result.weights.per_layer is None
    assert [m.name for m in result.measurements if m.kind.startswith(("vision", "audio", "tg"))] == [
        "vision_prepare",
        "vision_encode",
    ]
    assert "a sound" not in told


def test_the_first_tokens_are_the_models_own_greedy_ones(of_e2b: tuple[Result, list[str]]) -> None:
    config = read_config(checkpoint())
    model = load_model(checkpoint(), config)
    ids = random_ids(config, 40, 0)
    for token in of_e2b[0].first_tokens[:4]:
        assert token == int(mx.argmax(model(mx.array([ids]), last_only=True)))
        ids.append(token)


def test_random_ids_are_the_same_for_every_engine_and_never_special() -> None:
    config = read_config(checkpoint())
    ids = random_ids(config, 5000, 7)
    assert ids == random_ids(config, 5000, 7)
    assert ids[:100] != random_ids(config, 100, 8)
    assert not {SPECIAL_IDS[name] for name in ("<pad>", "<|image|>", "<|audio|>", "<|video|>", "<|image>")} & {*ids}
    assert len({*ids}) > 400


@pytest.mark.parametrize("depth", [10, 60])  # before and after the sliding layers' rings are full
def test_a_copied_cache_goes_on_as_the_original_would_and_leaves_it_alone(depth: int) -> None:
    engine = load_engine("gemma4-mlx", checkpoint(), "memory")
    ids = random_ids(read_config(checkpoint()), depth, 3)
    filled = engine.filled_cache(ids)
    first = list(engine.tokens([5], 8, copied(filled)))
    assert filled[0].offset == depth
    assert list(engine.tokens([5], 8, copied(filled))) == first
    assert list(engine.tokens([*ids, 5], 8, engine.make_cache())) == first


def test_lengths_beyond_the_context_are_refused_before_any_work() -> None:
    told: list[str] = []
    with pytest.raises(ValueError, match="need 4098 tokens, but the context holds 4096"):
        measure(Request("gemma4-mlx", "mine", checkpoint(), Plan((512,), (96,), (0, 3584), 1)), told.append)
    assert told == []


def spoilt(tmp_path: Path) -> Path:
    folder = tmp_path / "spoilt"
    shutil.copytree(checkpoint(), folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    return folder


def test_an_error_of_ours_comes_through_as_it_was(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"model\.safetensors") as raised:
        measured(Request("gemma4-mlx", "mine", spoilt(tmp_path), PLAN))
    assert "Traceback" in "".join(raised.value.__notes__)


def test_what_a_peer_cannot_run_is_one_line_that_names_both(tmp_path: Path) -> None:
    with pytest.raises(MeasuringError, match="mlx-lm cannot run mine: ") as raised:
        measured(Request("mlx-lm", "mine", spoilt(tmp_path), PLAN))
    assert "\n" not in str(raised.value)
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (signal.SIGKILL, "gemma4-mlx was killed while running mine, most likely because memory ran out"),
        (signal.SIGABRT, "gemma4-mlx died with code -6 while running mine: "),
    ],
)
def test_a_process_that_dies_is_an_error_that_says_how(number: int, told: str) -> None:
    def kill(_: str) -> None:
        for process in multiprocessing.active_children():
            assert process.pid
            os.kill(process.pid, number)

    with pytest.raises(MeasuringError, match=told):
        measure(Request("gemma4-mlx", "mine", checkpoint(), PLAN), kill)


def test_an_interrupt_ends_the_process_too() -> None:
    def interrupt(words: str) -> None:
        if words == "generating 6":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(Request("gemma4-mlx", "mine", checkpoint(), PLAN), interrupt)
    assert multiprocessing.active_children() == []


def test_whoever_is_measured_imports_what_it_needs_on_its_own_time() -> None:
    program = "import gemma4_mlx.app.bench.measure, sys; print({'mlx', 'numpy', 'PIL', 'tokenizers'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_folder_of_the_hubs_cache_tells_its_id_and_commit() -> None:
    hub = Path("/home/me/.cache/huggingface/hub")
    assert _origin(hub / "models--google--gemma-4-E2B-it" / "snapshots" / "0a1b") == ("google/gemma-4-E2B-it", "0a1b")
    assert _origin(hub / "models--me--odd--name" / "snapshots" / "0a1b") == ("me/odd--name", "0a1b")
    assert _origin(Path("/models/gemma-4-e2b")) == (None, None)
    assert _origin(Path("e2b")) == (None, None)


def test_the_packing_is_said_in_words() -> None:
    assert _packing({"bits": 4, "group_size": 64}) == "4-bit affine, group 64"
    assert _packing({"bits": 4, "group_size": 32, "mode": "mxfp4"}) == "4-bit mxfp4, group 32"
    assert _packing(None) is None
    assert _packing({"quant_method": "none"}) is None
