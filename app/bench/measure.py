"""One engine measured from nothing, in a process of its own, so that no engine finds another's memory, settings or
loaded libraries. What the engines write to stdout and stderr is kept from both.
"""

from __future__ import annotations

import datetime
import multiprocessing
import os
import platform
import signal
import sys
import tempfile
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal

from gemma4_mlx.errors import Gemma4Error

from ..gpu import backend
from ..machine import this_machine
from .engines import OURS, Name, engine_version, load_engine
from .report import Measurement, Plan, Result, Software, Weights
from .speed import (
    OnProgress,
    measure_text,
    measure_towers,
    process_memory,
    table_place,
    timing,
)

Place = Literal["disk", "memory"]

_PATIENCE = 2  # seconds a process has to end by itself


class MeasuringError(Gemma4Error):
    """An engine could not be measured."""


@dataclass(frozen=True)
class Request:
    """What one process is to measure.

    Attributes:
        engine: which engine.
        name: the model as the user named it.
        folder: its checkpoint.
        plan: how long, how often.
        per_layer: where ours keeps the per-layer table; peers have no choice.
        towers: measure pictures and sound too, which is done with ours only.
    """

    engine: Name
    name: str
    folder: Path
    plan: Plan
    per_layer: Literal["auto", "disk", "memory"] = "auto"
    towers: bool = True


def measure(request: Request, on_progress: OnProgress) -> Result:
    """Measure one engine in a new process.

    Raises:
        MeasuringError: the engine cannot run this checkpoint, or its process died.
        InputError: the engine is not installed.
        ValueError: the context is shorter than what is planned.
        Gemma4Error, ValueError, OSError: ours cannot, for a reason of its own.
    """
    from gemma4_mlx.checkpoint import read_config

    engine_version(request.engine)
    _check_room(request.plan, read_config(request.folder).text.max_position_embeddings)
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory(prefix="gemma4-mlx-") as scratch:
        log = Path(scratch) / "log"
        process = context.Process(target=_work, args=(request, sender, log), daemon=True)
        process.start()
        sender.close()
        try:
            result = _received(request, receiver, on_progress)
            process.join(_PATIENCE)
            return result
        except EOFError:
            process.join()
            raise MeasuringError(_death(request, process.exitcode or 0, log)) from None
        finally:
            receiver.close()
            _end(process)


def _received(request: Request, receiver: Connection, on_progress: OnProgress) -> Result:
    while True:
        message = receiver.recv()
        match message:
            case str():
                on_progress(message)
            case Result():
                return message
            case Gemma4Error() | ValueError() | OSError() if request.engine == OURS:
                raise message
            case BaseException():
                reason = " ".join(str(message).split())[:300] or type(message).__name__
                raise MeasuringError(f"{request.engine} cannot run {request.name}: {reason}") from message


def _end(process: BaseProcess) -> None:
    """End a process that is not needed any more. First politely: one that is killed leaves its semaphores behind."""
    process.terminate()
    process.join(_PATIENCE)
    if process.is_alive():
        process.kill()
        process.join()


def _death(request: Request, exit_code: int, log: Path) -> str:
    if exit_code == -signal.SIGKILL:
        return (
            f"{request.engine} was killed while running {request.name}, most likely because memory ran out: "
            "choose a smaller size, or smaller -p and -d"
        )
    last = log.read_text(encoding="utf-8", errors="replace").split("\n")[-300:] if log.exists() else []
    said = next((line.strip() for line in reversed(last) if line.strip()), "it said nothing")
    return f"{request.engine} died with code {exit_code} while running {request.name}: {said[:300]}"


def _work(request: Request, sender: Connection, log: Path) -> None:
    """The new process's whole life: sends words of progress, then a `Result` or an exception."""
    # Ctrl-C reaches every process of a terminal; the one that started this one ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    try:
        sender.send(_measured(request, sender.send))
    except BaseException as error:  # The edge of a process: its parent reads it, and raises it there.
        known = isinstance(error, Gemma4Error | ValueError | OSError)
        told = error if known else MeasuringError(f"{type(error).__name__}: {error}")
        told.add_note(traceback.format_exc())
        sender.send(told)


def _measured(request: Request, on_progress: OnProgress) -> Result:
    date = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    on_progress("loading")
    with timing() as watch:
        engine = load_engine(request.engine, request.folder, request.per_layer)
    # After the clock has stopped: an engine pays for its own imports.
    from gemma4_mlx.checkpoint import read_config

    config = engine.model.config if engine.model is not None else read_config(request.folder)
    measured = [Measurement("load", "s", (watch.seconds,))]
    of_text, first_tokens = measure_text(engine, config, request.plan, on_progress)
    measured += [*of_text, process_memory()]
    if engine.model is not None and request.towers:
        measured += measure_towers(engine.model, request.plan, on_progress)
    return Result(
        date=date,
        weights=_weights(request, config.quantization, table_place(engine.model) if engine.model else None),
        machine=this_machine(),
        software=_software(request.engine),
        plan=request.plan,
        measurements=tuple(measured),
        first_tokens=first_tokens,
    )


def _check_room(plan: Plan, context: int) -> None:
    # With each length go a token before it or one after.
    longest = max(plan.depths) + max((*plan.prompts, *plan.generations), default=0) + 2
    if longest > context:
        raise ValueError(f"these lengths and depths need {longest} tokens, but the context holds {context}: take less")


def _weights(request: Request, quantization: Mapping[str, Any] | None, place: Place | None) -> Weights:
    repository, revision = _origin(request.folder)
    size = sum(path.stat().st_size for path in request.folder.glob("*.safetensors"))
    return Weights(request.name, repository, revision, size, _packing(quantization), place)


def _origin(folder: Path) -> tuple[str | None, str | None]:
    """Hub id and commit of a folder in the Hub's cache: `models--owner--name/snapshots/<commit>`."""
    if folder.parent.name != "snapshots" or not folder.parents[1].name.startswith("models--"):
        return None, None
    return folder.parents[1].name.removeprefix("models--").replace("--", "/", 1), folder.name


def _packing(quantization: Mapping[str, Any] | None) -> str | None:
    """The rule for whatever has none of its own."""
    if not quantization or "bits" not in quantization:
        return None
    mode, group = quantization.get("mode", "affine"), quantization.get("group_size")
    return f"{quantization['bits']}-bit {mode}" + (f", group {group}" if group else "")


def _software(engine: Name) -> Software:
    return Software(
        engine=engine,
        engine_version=engine_version(engine),
        python=platform.python_version(),
        mlx=version("mlx"),
        mlx_lm=_installed("mlx-lm"),
        backend=backend(),
    )


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
