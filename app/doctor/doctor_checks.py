"""What `gemma4-mlx doctor` looks at, one function each.

Some run in threads at the same time. Two threads that import one package at once find it half made, so whatever those
need is imported here, with the file.
"""

from __future__ import annotations

import os
import platform
import re
import sys
import time

import huggingface_hub.hf_api  # noqa: F401  (for `ask_hub`)
from huggingface_hub import constants

from gemma4_mlx.byte_sizes import memory_size, physical_memory
from gemma4_mlx.checkpoint.builtin import DEMO
from gemma4_mlx.checkpoint.hub import ask_hub
from gemma4_mlx.errors import Gemma4Error, HubError

from ..demo.demo_recording import RECORDING, what_is_said
from ..exit_codes import one_line
from ..gpu import Gpu, this_gpu, wired_limit
from ..machine import Machine, this_machine
from ..microphone import Microphone, MicrophoneError, devices, find_device
from ..models.sizes import SIZES, Size
from ..settings import Settings, config_file, read_settings
from ..terminal import console, somebody_types
from .findings import Check, Finding, Status

_OLDEST_MACOS = 14
"""Before it there is no MLX to install."""
# The wheel for macOS 26 is built for 26.2 and uses the M5's matrix units from 26.0 on, where they are not right yet
# (MLX issue 4525); the wheels for older systems do not have them at all.
_OLDEST_FOR_M5 = (26, 2)
_LISTENING = 2.2  # seconds at most; some take one to begin, and another of zeros says that sound is withheld
_HUB_SECONDS = 2.5
_QUESTION = "Does my data leave this Mac?"


def look_at_machine() -> list[Finding]:
    return machine_findings(this_machine(), platform.machine())


def machine_findings(machine: Machine, architecture: str) -> list[Finding]:
    """Chip, system and memory.

    Args:
        architecture: this Python is built for.
    """
    return [_chip(machine, architecture), _system(machine), _memory(machine.memory_bytes or physical_memory())]


def _chip(machine: Machine, architecture: str) -> Finding:
    name = machine.chip or "unknown"
    if not machine.system.startswith("macOS"):
        return Finding("chip", "warning", f"{name}: not a Mac; MLX computes on the CPU here, which is slow")
    if name.startswith("Intel"):
        return Finding("chip", "failed", f"{name}: MLX needs Apple silicon (M1 or newer)")
    if architecture != "arm64":
        text = f"{name}, but this Python is built for {architecture}: install one for arm64 (brew install python)"
        return Finding("chip", "failed", text)
    cores = f", {machine.gpu_cores} GPU cores" if machine.gpu_cores else ""
    return Finding("chip", "ok", name + cores)


def _system(machine: Machine) -> Finding:
    if not machine.system.startswith("macOS"):
        return Finding("system", "warning", f"{machine.system}: this program is made for macOS")
    version = _version(machine.system)
    if version and version[0] < _OLDEST_MACOS:
        text = f"{machine.system}: MLX needs macOS {_OLDEST_MACOS} or newer; update in System Settings"
        return Finding("system", "failed", text)
    if _is_m5(machine.chip) and (26,) <= version < _OLDEST_FOR_M5:
        text = f"{machine.system}: MLX needs macOS 26.2 on an M5; update in System Settings"
        return Finding("system", "warning", text)
    if machine.low_power_mode:
        return Finding("system", "warning", f"{machine.system}, in low power mode: everything is slower")
    return Finding("system", "ok", machine.system)


def _is_m5(chip: str | None) -> bool:
    return chip is not None and re.match(r"Apple M5\b", chip) is not None


def _version(system: str) -> tuple[int, ...]:
    """The numbers of "macOS 26.1"; empty where there are none."""
    return tuple(int(number) for number in re.findall(r"\d+", system)[:2])


def _memory(memory: int) -> Finding:
    fitting = [size.name for size in reversed(SIZES) if size.fits(memory)]
    have = memory_size(memory)
    if not fitting:
        smallest = SIZES[-1]
        text = f"{have}: {smallest.name}, the smallest, is made for {smallest.memory_gb} GB; close what else runs"
        return Finding("memory", "warning", text)
    return Finding("memory", "ok", f"{have}, enough for {_listed(fitting)}")


def look_at_gpu() -> list[Finding]:
    try:
        gpu = this_gpu()
    except (ImportError, OSError) as error:
        return [Finding("MLX", "failed", f"cannot be loaded ({one_line(error)}): pip install --force-reinstall mlx")]
    return gpu_findings(gpu, wired_limit(), physical_memory(), this_machine().chip)


def gpu_findings(gpu: Gpu, wired_limit: int | None, memory: int, chip: str | None = None) -> list[Finding]:
    """What MLX computes on, and whether the GPU may use as much memory as the sizes for this machine need.

    Args:
        chip: of this machine.
        wired_limit: `iogpu.wired_limit_mb` in bytes; 0: the system's own choice; None: there is none.
        memory: of this machine, in bytes.
    """
    if gpu.backend != "metal":
        where = "the CPU" if gpu.backend == "cpu" else "CUDA"
        return [Finding("MLX", "warning", f"{gpu.mlx} computes on {where}: Metal is only there on a Mac")]
    findings = [_metal(gpu, chip)]
    limit = wired_limit or gpu.limit_bytes
    if limit is None:
        return findings
    source = "set by iogpu.wired_limit_mb" if wired_limit else "the system's own choice"
    have = f"the GPU may use {limit / 2**30:.0f} of {memory / 2**30:.0f} GB, {source}"
    short = [size for size in SIZES if size.fits(memory) and size.download_gb * 1e9 > limit]
    if short:
        text = (
            f"{have}: too little for {_listed([size.name for size in short])}; "
            f"sudo sysctl iogpu.wired_limit_mb={_wired_megabytes(short[0])} allows it until the next start"
        )
        return [*findings, Finding("GPU memory", "warning", text)]
    return [*findings, Finding("GPU memory", "ok", have)]


def _metal(gpu: Gpu, chip: str | None) -> Finding:
    text = f"{gpu.mlx} computes on the GPU (Metal)"
    if _is_m5(chip) and gpu.built_for and gpu.built_for < 26:
        text += (
            f", with kernels made for macOS {gpu.built_for}, which read prompts several times slower on an M5: "
            "update to macOS 26.2, then pip install --force-reinstall mlx mlx-metal"
        )
        return Finding("MLX", "warning", text)
    return Finding("MLX", "ok", text)


def _wired_megabytes(size: Size) -> int:
    """The weights and a third more."""
    return round(size.download_gb * 1e9 * 4 / 3) >> 20


def look_at_tables() -> list[Finding]:
    from gemma4_mlx.checkpoint.load import automatic_place

    small = [size for size in reversed(SIZES) if size.per_layer_table]
    places = {size.name: automatic_place(round(size.download_gb * 1e9)) for size in small}
    text = ", ".join(
        f"{name} {'in memory' if place == 'memory' else 'on disk, read row by row'}" for name, place in places.items()
    )
    memory = memory_size(physical_memory())
    return [Finding("tables", "ok", f"{text} (in memory where the weights leave half of {memory} free)")]


def look_at_models() -> list[Finding]:
    from ..models.models import look_around

    try:
        models = look_around()
    except Gemma4Error:
        return []  # the config file, which has a finding of its own
    name = models.choice.name
    text = f"{name} would be used ({models.choice.reason})"
    free = f"{models.free / 1e9:.0f} GB free in {models.cache}"
    size = next((size for size in SIZES if size.name == name.lower()), None)
    if size is None:
        return [Finding("model", "ok", text), Finding("disk", "ok", free)]
    cached = models.of_size(size)
    if cached is not None and cached.whole:
        return [Finding("model", "ok", f"{text}; it is here"), Finding("disk", "ok", free)]
    text += f"; {size.download} to fetch: gemma4-mlx models pull {size.name}"
    if size.download_gb * 1e9 > models.free:
        free += f", too little for {size.name}: make room, or set HF_HOME to a larger disk"
        return [Finding("model", "ok", text), Finding("disk", "warning", free)]
    return [Finding("model", "ok", text), Finding("disk", "ok", free)]


def look_at_microphone() -> list[Finding]:
    try:
        available = devices()
        with Microphone(find_device(_settings().transcribe.device, available)) as microphone:
            hears = _hears(microphone)
            warnings = microphone.warnings()
    except MicrophoneError as error:
        return [Finding("microphone", "warning", one_line(error))]
    name = microphone.device.name
    if warnings:
        return [Finding("microphone", "warning", f"{name}: {warnings[0]}")]
    if not hears:
        return [Finding("microphone", "warning", f"{name}: no sound came in {_LISTENING:g} s; is it connected?")]
    others = f", one of {len(available)}" if len(available) > 1 else ""
    return [Finding("microphone", "ok", f"{name}{others}: sound comes in")]


def _hears(microphone: Microphone) -> bool:
    """Listen until there is any sound, and no longer than it takes to know that there is none."""
    deadline = time.monotonic() + _LISTENING
    while (left := deadline - time.monotonic()) > 0 and not microphone.capture.only_zeros:
        if microphone.read(left).any():
            return True
    return False


def _settings() -> Settings:
    try:
        return read_settings(config_file())
    except Gemma4Error:
        return Settings()  # the file has a finding of its own


def look_at_terminal() -> list[Finding]:
    from ..line.preview import picture_protocol
    from .terminal_answers import brackets_pastes

    if not (somebody_types() and sys.stdout.isatty()):
        return [Finding("terminal", "ok", "none here: plain text is written")]
    if os.environ.get("TERM", "dumb") == "dumb":
        return [Finding("terminal", "warning", "TERM is dumb: no colours, no pictures, no editing of what you type")]
    system = console(sys.stdout).color_system
    colours = {"truecolor": "16 million colours", "256": "256 colours", None: "no colours"}.get(system, "16 colours")
    protocol = picture_protocol()
    pictures = f"shows pictures ({protocol})" if protocol else "shows no pictures"
    pastes = brackets_pastes(sys.stdin.fileno())
    name = os.environ.get("TERM_PROGRAM") or os.environ["TERM"]
    text = f"{name}: {colours}, {pictures}"
    status: Status = "ok"
    if pastes is None:
        text += ", does not say how it pastes"
    elif pastes:
        text += ", marks what is pasted or dropped"
    else:
        status, text = "warning", text + ", does not mark what is pasted: several lines arrive as several messages"
    return [Finding("terminal", status, text)]


def look_at_hub() -> list[Finding]:
    if constants.HF_HUB_OFFLINE:
        return [Finding("Hub", "warning", "HF_HUB_OFFLINE is set: only models that are here can be used")]
    started = time.monotonic()
    try:
        ask_hub(_HUB_SECONDS)
    except HubError as error:
        return [Finding("Hub", "warning", one_line(error))]
    return [Finding("Hub", "ok", f"{constants.ENDPOINT} answers in {time.monotonic() - started:.1f} s")]


def look_at_config() -> list[Finding]:
    file = config_file()
    try:
        read_settings(file)
    except Gemma4Error as error:
        return [Finding("config", "failed", one_line(error))]
    return [Finding("config", "ok", str(file) if file.exists() else f"none, it would be {file}")]


def look_at_demo() -> list[Finding]:
    import gemma4_mlx as g4
    from gemma4_mlx.checkpoint.hub import resolve

    started = time.monotonic()
    try:
        model, processor = g4.load(resolve(DEMO))
        heard = g4.transcribe(model, processor, RECORDING, "English").text
        answer = g4.generate(model, processor, _QUESTION, max_tokens=64, temperature=0.0).text.strip()
    except Gemma4Error as error:
        return [Finding("demo", "failed", one_line(error))]
    said = what_is_said()
    if not answer:
        return [Finding("demo", "failed", "the built-in model gives no answer: reinstall gemma4-mlx")]
    if heard != said:
        text = f"the built-in model wrote {heard!r} for {said!r}: answers may be wrong on this machine"
        return [Finding("demo", "warning", text)]
    text = f"the built-in model hears {heard!r} and says {answer!r} ({time.monotonic() - started:.1f} s)"
    return [Finding("demo", "ok", text)]


def _listed(names: list[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


CHECKS = (
    Check("machine", look_at_machine, waits=False),
    Check("MLX", look_at_gpu, waits=False),
    Check("tables", look_at_tables, waits=False),
    Check("microphone", look_at_microphone),
    Check("terminal", look_at_terminal, waits=False),
    Check("Hub", look_at_hub),
    Check("model", look_at_models, waits=False),
    Check("config", look_at_config, waits=False),
    Check("demo", look_at_demo, waits=False),
)
