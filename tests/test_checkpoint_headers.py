"""safetensors headers: what the format forbids is one line that says so, before a weight is read."""

from __future__ import annotations

import json
import os
import random
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError, safe_open

from gemma4_mlx import CheckpointError
from gemma4_mlx.checkpoint.headers import read_header

# Two tensors of 16 and 8 bytes, one after the other.
GOOD: dict[str, Any] = {
    "__metadata__": {"format": "pt"},
    "a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
    "b": {"dtype": "BF16", "shape": [4], "data_offsets": [16, 24]},
}


def write(path: Path, header: Any, content: int = 24, length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + bytes(content))
    return path


def changed(tensor: str, **changes: Any) -> dict[str, Any]:
    return {**GOOD, tensor: {**GOOD[tensor], **changes}}


def without(tensor: str, key: str) -> dict[str, Any]:
    return {**GOOD, tensor: {k: v for k, v in GOOD[tensor].items() if k != key}}


def test_a_whole_file_is_read_in_any_order_with_empty_tensors_and_scalars(tmp_path: Path) -> None:
    header = {
        "b": GOOD["b"],
        "empty": {"dtype": "F32", "shape": [0, 7], "data_offsets": [16, 16]},
        "a": GOOD["a"],
        "scalar": {"dtype": "F16", "shape": [], "data_offsets": [24, 26]},
        "small": {"dtype": "F4", "shape": [4], "data_offsets": [26, 28]},
    }
    found = read_header(write(tmp_path / "f", header, 28))
    start = (tmp_path / "f").stat().st_size - 28
    assert {name: (t.offset - start, t.nbytes, t.shape) for name, t in found.items()} == {
        "a": (0, 16, (2, 2)),
        "b": (16, 8, (4,)),
        "empty": (16, 0, (0, 7)),
        "scalar": (24, 2, ()),
        "small": (26, 2, (4,)),
    }


FORBIDDEN = {
    "an overlap": (changed("b", data_offsets=[8, 16]), "does not begin where"),
    "the same place twice": (changed("b", dtype="F32", data_offsets=[0, 16]), "b does not begin where a ends"),
    "a hole": (changed("b", data_offsets=[18, 26]), "b does not begin where a ends"),
    "a negative offset": (changed("a", data_offsets=[-16, 0]), "a has no place"),
    "an end before the beginning": (changed("a", shape=[-2, 2], data_offsets=[16, 0]), "a has no shape"),
    "a first tensor that begins late": (
        {"a": changed("a", data_offsets=[8, 24])["a"]},
        "a does not begin where the header",
    ),
    "bytes after the last": ({"a": GOOD["a"]}, "8 bytes follow the last tensor"),
    "a shape that is too small": (changed("a", shape=[2, 1]), "a is not as long as its type and shape say"),
    "a shape that is too large": (changed("a", shape=[2**40, 2**40]), "a is not as long"),
    "a side that is no number": (changed("a", shape=[2.0, 2]), "a has no shape"),
    "a side that is true": (changed("a", shape=[True, 4]), "a has no shape"),
    "a shape that is a text": (changed("a", shape="22"), "a has no shape"),
    "a shape of a million sides": (changed("a", shape=[4] + [1] * 10**6), "a has no shape"),
    "no shape": (without("a", "shape"), "a has no shape"),
    "no type": (without("a", "dtype"), "a is of the unknown type None"),
    "no place": (without("a", "data_offsets"), "a has no place"),
    "one offset": (changed("a", data_offsets=[0]), "a has no place"),
    "offsets that are texts": (changed("a", data_offsets=["0", "16"]), "a has no place"),
    "an unknown type": (changed("a", dtype="F31"), "a is of the unknown type F31"),
    "a type that is a list": (changed("a", dtype=["F32"]), "a is of the unknown type"),
    "a tensor that is a number": ({**GOOD, "a": 4}, "a is not described"),
    "a tensor that is a list": ({**GOOD, "a": []}, "a is not described"),
    "metadata that are a list": ({**GOOD, "__metadata__": ["pt"]}, "its metadata are not texts"),
    "metadata that hold a number": ({**GOOD, "__metadata__": {"a": 1}}, "its metadata are not texts"),
    "a list": (b"[1, 2, 3]", "it is no object"),
    "no JSON": (b"{not json", "it is no JSON"),
    "no text": (b'{"\xff": 1}', "it is no text"),
    "endless nesting": (b'{"a":' * 100_000, "nested too deep"),
    "a name twice": (
        json.dumps(GOOD)[:-1].encode() + b', "a": ' + json.dumps(GOOD["a"]).encode() + b"}",
        "a stands in it twice",
    ),
    "a number of 5000 digits": (b'{"a": {"shape": [' + b"1" * 5000 + b"]}}", "damaged header"),
    "an infinite number": (b'{"a": {"dtype": "F32", "shape": [Infinity], "data_offsets": [0, 4]}}', "a has no shape"),
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_what_the_format_forbids_is_named_in_one_line(what: str, tmp_path: Path) -> None:
    header, message = FORBIDDEN[what]
    file = write(tmp_path / "model.safetensors", header)
    with pytest.raises(CheckpointError, match=r"model.safetensors has a damaged header .*download it again") as refusal:
        read_header(file)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 400


@pytest.mark.parametrize("length", [0, 1, 10**6, 2**63, 2**64 - 1])
def test_a_header_longer_than_the_file_or_than_any_is_no_whole_file(length: int, tmp_path: Path) -> None:
    file = write(tmp_path / "f", GOOD, length=length)
    with pytest.raises(CheckpointError, match="is not a whole safetensors file"):
        read_header(file)


def test_a_name_with_line_breaks_and_escapes_stays_in_its_line(tmp_path: Path) -> None:
    header = {**GOOD, "x\n\x1b[2J" + "y" * 1000: {"dtype": "F31"}}
    with pytest.raises(CheckpointError) as refusal:
        read_header(write(tmp_path / "f", header))
    assert str(refusal.value).isprintable()
    assert len(str(refusal.value)) < 400


def test_what_is_not_a_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, tmp_path / "gone"):
        with pytest.raises(CheckpointError, match="download it again"):
            read_header(path)


MEASURED = """
import resource, sys, time
from pathlib import Path
from gemma4_mlx.checkpoint.headers import read_header
before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
try:
    print(len(read_header(Path(sys.argv[1]))))
except Exception as error:
    print(type(error).__name__)
print(time.process_time() - start, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS counts memory in other units")
@pytest.mark.parametrize("kind", ["lists", "tensors"])
def test_the_largest_header_takes_bounded_time_and_memory(kind: str, tmp_path: Path) -> None:
    entry = ',"%07d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    text = {
        "lists": b'{"a":{"shape":[' + b"[]," * 3_200_000 + b"[]]}}",
        "tensors": ("{" + "".join(entry % i for i in range(150_000))[1:] + "}").encode(),
    }[kind]
    assert 8_000_000 < len(text) < 10_000_000
    command = [sys.executable, "-c", MEASURED, str(write(tmp_path / "f", text, 0))]
    found, seconds, megabytes = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert found == {"lists": "CheckpointError", "tensors": "150000"}[kind]
    assert float(seconds) < 5
    assert float(megabytes) < 500


def test_what_is_read_is_what_the_safetensors_library_reads(tmp_path: Path) -> None:
    chance, text, read = random.Random(7), json.dumps(GOOD).encode(), 0
    for _ in range(1500):
        mutated = bytearray(text)
        for _ in range(chance.choice((1, 1, 2, 3))):
            place = chance.randrange(len(mutated))
            mutated[place] = chance.choice(b'0123456789{}[]",:-.eFIBU ab')
        file = write(tmp_path / "f", bytes(mutated))
        try:
            ours = read_header(file)
        except CheckpointError as error:
            assert "\n" not in str(error)  # noqa: PT017
            continue
        read += 1
        try:
            with safe_open(file, framework="numpy") as theirs:
                assert set(theirs.keys()) == set(ours)
                assert {n: tuple(theirs.get_slice(n).get_shape()) for n in ours} == {
                    n: t.shape for n, t in ours.items()
                }
        except SafetensorError as error:
            pytest.fail(f"{bytes(mutated)!r} is refused by safetensors ({error}) and read here")
    assert read > 30


def test_damaged_versions_of_a_real_file_are_refused_where_the_format_tells() -> None:
    bench = Path(__file__).parents[1] / "bench" / "damaged_checkpoints.py"
    run = subprocess.run([sys.executable, str(bench), "12"], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
