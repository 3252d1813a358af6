"""What a machine is, read from what its own commands answer."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from gemma4_mlx.app.machine import Machine, linux, mac, this_machine
from hypothesis import given
from hypothesis import strategies as st

HARDWARE = Path(__file__).parent / "tiny" / "hardware"

FILES = {
    "sysctl": "sysctl.txt",
    "system_profiler": "system_profiler.json",
    "sw_vers": "sw_vers.txt",
    "pmset -g batt": "pmset-g-batt.txt",
    "pmset -g": "pmset-g.txt",
}

EXPECTED = {
    "macbook-air-m1": Machine("Apple M1", "MacBookAir10,1", 8, 7, 8 << 30, "macOS 13.6.7", "battery", True),
    "macbook-pro-m1-max": Machine("Apple M1 Max", "MacBookPro18,2", 10, 32, 64 << 30, "macOS 14.6.1", "ac", False),
    "mac-studio-m2-ultra": Machine("Apple M2 Ultra", "Mac14,14", 24, 76, 192 << 30, "macOS 14.2.1", "ac", None),
    "macbook-pro-m3-pro": Machine("Apple M3 Pro", "Mac15,6", 12, 18, 36 << 30, "macOS 15.1", "ac", False),
    "mac-mini-m4": Machine("Apple M4", "Mac16,10", 10, 10, 16 << 30, "macOS 15.3.1", "ups", False),
    "macbook-pro-m5": Machine("Apple M5", "Mac17,2", 10, 10, 24 << 30, "macOS 26.1", "battery", False),
    "virtual-m1": Machine("Apple M1 (Virtual)", "VirtualMac2,1", 3, None, 7 << 30, "macOS 14.7", "ac", None),
}


def answers_of(folder: Path, without: str = "") -> Callable[[Sequence[str]], str]:
    """A Mac that answers with the files of `folder`, but not to the command `without`."""

    def ask(command: Sequence[str]) -> str:
        name = " ".join(command) if command[0] == "pmset" else command[0]
        return "" if name == without else (folder / FILES[name]).read_text(encoding="utf-8")

    return ask


def test_every_recorded_mac_is_expected() -> None:
    assert {path.name for path in HARDWARE.iterdir() if path.is_dir()} == EXPECTED.keys()


@pytest.mark.parametrize("name", EXPECTED)
def test_a_mac_is_read_from_its_commands(name: str) -> None:
    assert mac(answers_of(HARDWARE / name)) == EXPECTED[name]


@pytest.mark.parametrize("missing", FILES)
def test_a_command_that_does_not_answer_costs_only_its_own_facts(missing: str) -> None:
    whole = EXPECTED["macbook-pro-m3-pro"]
    found = mac(answers_of(HARDWARE / "macbook-pro-m3-pro", without=missing))
    lost = {
        "sysctl": {"chip", "model", "cpu_cores", "memory_bytes"},
        "system_profiler": {"gpu_cores"},
        "sw_vers": {"system"},
        "pmset -g batt": {"power"},
        "pmset -g": {"low_power_mode"},
    }[missing]
    differing = {name for name, value in vars(whole).items() if getattr(found, name) != value}
    assert differing == lost
    assert found.system.startswith("macOS")


@given(st.text(), st.text(), st.text())
def test_no_answer_whatever_ends_in_an_error(plain: str, displays: str, power: str) -> None:
    def ask(command: Sequence[str]) -> str:
        return {"system_profiler": displays, "pmset": f"Now drawing from '{power}'"}.get(command[0], plain)

    assert isinstance(mac(ask).system, str)


@pytest.mark.parametrize(
    "displays", ["", "[]", "{}", '{"SPDisplaysDataType": [3]}', '{"SPDisplaysDataType": [{"sppci_cores": 8.5}]}']
)
def test_gpu_cores_that_are_not_told_are_unknown(displays: str) -> None:
    assert mac(lambda command: displays if command[0] == "system_profiler" else "").gpu_cores is None


def test_linux_names_the_processor_and_the_distribution() -> None:
    cpu_info = "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel\t\t: 1\nmodel name\t: AMD EPYC 7B13\nprocessor\t: 1\n"
    machine = linux(cpu_info, "Debian GNU/Linux 12 (bookworm)")
    assert (machine.chip, machine.system) == ("AMD EPYC 7B13", "Debian GNU/Linux 12 (bookworm)")
    assert machine.gpu_cores is None
    assert machine.memory_bytes is not None
    assert machine.memory_bytes > 2**28


def test_linux_on_arm_names_the_board_or_the_architecture() -> None:
    cores = "processor\t: 0\nBogoMIPS\t: 108.00\nCPU implementer\t: 0x41\n"
    assert linux(f"{cores}\nModel\t\t: Raspberry Pi 5 Model B Rev 1.0\n", None).chip == "Raspberry Pi 5 Model B Rev 1.0"
    assert linux(cores, None).chip == platform.machine()
    assert linux("", None).system.startswith(platform.system())


def test_this_machine_has_a_chip_and_memory() -> None:
    machine = this_machine()
    assert machine.chip
    assert machine.memory_bytes
    assert machine.cpu_cores
