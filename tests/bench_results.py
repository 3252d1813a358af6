"""Results as a benchmark would give them, for tests of what is done with them. Not a test itself."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from gemma4_mlx.app.bench.report import Measurement, Plan, Result, Software, Weights
from gemma4_mlx.app.machine import Machine
from jsonschema import Draft202012Validator

SCHEMA = json.loads((Path(__file__).parents[1] / "docs" / "bench-schema.json").read_text(encoding="utf-8"))

M3_PRO = Machine("Apple M3 Pro", "Mac15,6", 12, 18, 36 * 2**30, "macOS 15.1", "ac", False)
REVISION = "0123456789abcdef0123456789abcdef01234567"


def check_report(report: object) -> None:
    """Raise unless `report` is what the published schema says."""
    Draft202012Validator(SCHEMA).validate(json.loads(json.dumps(report)))


def check_row(row: object) -> None:
    """Raise unless `row` is what the published schema says of a line of jsonl."""
    rows = {**SCHEMA["$defs"]["row"], "$defs": SCHEMA["$defs"]}
    Draft202012Validator(rows).validate(row)


def result(faster: float = 1.0, **changes: object) -> Result:
    """A result of e2b on an M3 Pro in which every speed is multiplied by `faster`."""

    def speed(kind: str, tokens: int, depth: int, *samples: float) -> Measurement:
        return Measurement(kind, "tok/s", tuple(s * faster for s in samples), tokens, depth)

    measurements = (
        Measurement("load", "s", (0.41 / faster,)),
        Measurement("ttft_cold", "s", (1.24 / faster,), 512),
        speed("pp", 512, 0, 1230.0, 1240.0, 1250.0),
        Measurement("ttft", "s", tuple(s / faster for s in (0.416, 0.413, 0.41)), 512, 0),
        speed("tg", 128, 0, 55.5, 56.5, 56.0),
        speed("pp", 512, 16384, 803.0, 801.0, 799.0),
        Measurement("ttft", "s", tuple(s / faster for s in (0.638, 0.639, 0.641)), 512, 16384),
        speed("tg", 128, 16384, 47.0, 47.25, 47.5),
        Measurement("memory_text", "bytes", (3.1e9,)),
        Measurement("memory_process", "bytes", (3.4e9,)),
        Measurement("vision_prepare", "s", (0.011, 0.012, 0.011), 256),
        Measurement("vision_encode", "s", (0.12, 0.121, 0.119), 256),
        Measurement("audio_prepare", "s", (0.021, 0.022, 0.021), 750),
        Measurement("audio_encode", "s", (0.33, 0.34, 0.33), 750),
        Measurement("audio_rtf", "x", (0.0117, 0.0121, 0.0117)),
        Measurement("memory_all", "bytes", (4.2e9,)),
    )
    whole = Result(
        date="2026-11-24T09:30:00+01:00",
        weights=Weights(
            "e2b", "mlx-community/gemma-4-e2b-it-8bit", REVISION, 5_500_000_000, "8-bit affine, group 64", "disk"
        ),
        machine=M3_PRO,
        software=Software("gemma4-mlx", "0.1.0", "3.12.4", "0.32.4", "0.32.2", "metal"),
        plan=Plan((512,), (128,), (0, 16384), 3),
        measurements=measurements,
        first_tokens=(5, 6, 7, 8),
    )
    return dataclasses.replace(whole, **changes)
