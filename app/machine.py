"""What a machine is: chip, GPU cores, memory, system, and whether it draws from its battery.

macOS is asked through its own commands, Linux through `/proc`. What cannot be found out is None, never a guess.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gemma4_mlx.byte_sizes import physical_memory

#: A command's words → what it writes to stdout, "" if it cannot be run.
Ask = Callable[[Sequence[str]], str]

Power = Literal["ac", "battery", "ups"]

_SYSCTL = ("sysctl", "machdep.cpu.brand_string", "hw.model", "hw.memsize", "hw.physicalcpu")
_DISPLAYS = ("system_profiler", "-json", "SPDisplaysDataType")
_VERSION = ("sw_vers",)
_POWER_SOURCE = ("pmset", "-g", "batt")
_POWER_SETTINGS = ("pmset", "-g")

_SOURCES: Mapping[str, Power] = {"AC Power": "ac", "Battery Power": "battery", "UPS Power": "ups"}
_PATIENCE = 20  # seconds; system_profiler takes one or two on a busy Mac


@dataclass(frozen=True)
class Machine:
    """A machine's facts.

    Attributes:
        chip: such as "Apple M3 Pro", or the CPU's model on Linux.
        model: Apple's identifier, such as "Mac15,6".
        cpu_cores: physical ones on macOS, those this process may use on Linux.
        memory_bytes: all of it.
        system: name and version, such as "macOS 15.1".
        power: what it draws from.
        low_power_mode: macOS slows itself down to save energy.
    """

    chip: str | None
    model: str | None
    cpu_cores: int | None
    gpu_cores: int | None
    memory_bytes: int | None
    system: str
    power: Power | None
    low_power_mode: bool | None


def this_machine() -> Machine:
    """The machine this runs on; takes up to a few seconds on a Mac."""
    if platform.system() == "Darwin":
        return mac(ask_command)
    cpu_info = ""
    with suppress(OSError):
        cpu_info = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    release: Mapping[str, str] = {}
    with suppress(OSError):
        release = platform.freedesktop_os_release()
    return linux(cpu_info, release.get("PRETTY_NAME"))


def mac(ask: Ask) -> Machine:
    """A Mac, by what its commands answer."""
    sysctl = keys_and_values(ask(_SYSCTL))
    version = keys_and_values(ask(_VERSION))
    source = re.search(r"drawing from '([^']+)'", ask(_POWER_SOURCE))
    saving = re.search(r"^\s*(?:lowpowermode|powermode)\s+(\d)", ask(_POWER_SETTINGS), re.MULTILINE)
    return Machine(
        chip=sysctl.get("machdep.cpu.brand_string"),
        model=sysctl.get("hw.model"),
        cpu_cores=_count(sysctl.get("hw.physicalcpu")),
        gpu_cores=_gpu_cores(ask(_DISPLAYS)),
        memory_bytes=_count(sysctl.get("hw.memsize")),
        system=" ".join(filter(None, (version.get("ProductName", "macOS"), version.get("ProductVersion")))),
        power=_SOURCES.get(source[1]) if source else None,
        # Where there is a third, high power mode it is `powermode` 2.
        low_power_mode=saving[1] == "1" if saving else None,
    )


def linux(cpu_info: str, distribution: str | None) -> Machine:
    """A Linux machine.

    Args:
        cpu_info: the text of `/proc/cpuinfo`. On ARM it often names no model; then the chip is the architecture.
        distribution: its name and version.
    """
    name = re.search(r"^(?:model name|Model)\s*:\s*(\S.*?)\s*$", cpu_info, re.MULTILINE)
    return Machine(
        chip=name[1] if name else platform.machine() or None,
        model=None,
        cpu_cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        gpu_cores=None,
        memory_bytes=physical_memory(),
        system=distribution or f"{platform.system()} {platform.release()}",
        power=None,
        low_power_mode=None,
    )


def ask_command(command: Sequence[str]) -> str:
    """A command's stdout, whatever its exit code: `sysctl` fails when one of several keys is unknown."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


def keys_and_values(text: str) -> dict[str, str]:
    """Lines of "key: value", as `sysctl` and `sw_vers` write them; a key without a value is left out."""
    pairs = (line.partition(":") for line in text.splitlines())
    return {key.strip(): value.strip() for key, colon, value in pairs if colon and value.strip()}


def _count(text: Any) -> int | None:
    return int(text) if isinstance(text, str) and text.isdecimal() else None


def _gpu_cores(displays: str) -> int | None:
    """GPU cores in `system_profiler`'s answer; None in a virtual machine, whose GPU has none of its own."""
    try:
        cards = json.loads(displays)["SPDisplaysDataType"]
        counts = [_count(card.get("sppci_cores")) for card in cards]
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
    return max((count for count in counts if count), default=None)
