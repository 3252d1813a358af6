"""What a benchmark found, as plain values, and its JSON form (`docs/bench-schema.json`).

No measuring in here and no tables: those who measure fill these in, those who show them read them.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from gemma4_mlx.errors import InputError

from ..machine import Machine
from ..whole_file import read_small_text

SCHEMA = "gemma4-mlx bench"
SCHEMA_VERSION = 1

Unit = Literal["tok/s", "s", "bytes", "x"]

# Kind → what it is called in a table, with its count of tokens.
LABELS: Mapping[str, str] = MappingProxyType(
    {
        "load": "import and load",
        "ttft_cold": "cold first token after {}",
        "pp": "prompt of {}",
        "ttft": "first token after {}",
        "tg": "generation of {}",
        "vision_prepare": "picture of {}: prepare",
        "vision_encode": "picture of {}: encode",
        "audio_prepare": "30 s of sound: prepare",
        "audio_encode": "30 s of sound: encode",
        "audio_rtf": "sound: real-time factor",
        "memory_text": "peak memory, text",
        "memory_process": "peak memory, process",
        "memory_all": "peak memory, all senses",
    }
)


@dataclass(frozen=True)
class Measurement:
    """One thing measured, once or several times.

    Attributes:
        kind: a key of `LABELS`.
        unit: "x" is a plain ratio.
        samples: one value per repetition, at least one.
        tokens: how many were read, generated or encoded, where that means something.
        depth: tokens already in the context, where that means something.
    """

    kind: str
    unit: Unit
    samples: tuple[float, ...]
    tokens: int | None = None
    depth: int | None = None

    @property
    def name(self) -> str:
        """What it is called in files: `pp512`, `tg128@4096`, `load`."""
        count = "" if self.tokens is None or self.depth is None else str(self.tokens)
        return f"{self.kind}{count}{f'@{self.depth}' if self.depth else ''}"

    @property
    def label(self) -> str:
        """What it is called in tables, which have a column for the depth."""
        return LABELS[self.kind].format(self.tokens)

    @property
    def mean(self) -> float:
        return statistics.fmean(self.samples)

    @property
    def std(self) -> float | None:
        """Sample standard deviation; None of a single value."""
        return statistics.stdev(self.samples) if len(self.samples) > 1 else None

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "kind": self.kind,
            "unit": self.unit,
            "tokens": self.tokens,
            "depth": self.depth,
            "mean": self.mean,
            "std": self.std,
            "samples": list(self.samples),
        }


@dataclass(frozen=True)
class Weights:
    """Which weights were measured.

    Attributes:
        name: as the user gave it.
        repository: Hub id, if they came from there.
        revision: its commit.
        nbytes: size of the `.safetensors` files.
        quantization: how the decoder is packed, such as "4-bit affine, group 64"; None: not at all.
        per_layer: where the per-layer table was, or None for sizes without one and for engines that do not say.
    """

    name: str
    repository: str | None
    revision: str | None
    nbytes: int
    quantization: str | None
    per_layer: Literal["disk", "memory"] | None


@dataclass(frozen=True)
class Software:
    """Versions of what ran. `backend` is what MLX computed on."""

    engine: str
    engine_version: str
    python: str
    mlx: str
    mlx_lm: str | None
    backend: Literal["metal", "cuda", "cpu"]


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        prompts: prompt lengths in tokens.
        generations: how many tokens are generated.
        depths: tokens already in the context.
        repetitions: of each, after one that warms up.
    """

    prompts: tuple[int, ...] = (512,)
    generations: tuple[int, ...] = (128,)
    depths: tuple[int, ...] = (0,)
    repetitions: int = 5


@dataclass(frozen=True)
class Result:
    """All that one engine did with one set of weights on one machine.

    Attributes:
        date: when it began, ISO 8601 with its offset.
        first_tokens: what it said after the first prompt, greedily; equal prompts are given to every engine.
    """

    date: str
    weights: Weights
    machine: Machine
    software: Software
    plan: Plan
    measurements: tuple[Measurement, ...]
    first_tokens: tuple[int, ...]

    def as_dict(self) -> dict[str, Any]:
        measured = [measurement.as_dict() for measurement in self.measurements]
        return {**asdict(self), "measurements": measured}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Result:
        """The inverse of `as_dict`. Raises KeyError, TypeError or ValueError where `raw` is something else."""
        return cls(
            date=str(raw["date"]),
            weights=Weights(**raw["weights"]),
            machine=Machine(**raw["machine"]),
            software=Software(**raw["software"]),
            plan=_plan(raw["plan"]),
            measurements=tuple(_measurement(entry) for entry in raw["measurements"]),
            first_tokens=tuple(int(token) for token in raw["first_tokens"]),
        )

    def measured(self, kind: str) -> list[Measurement]:
        """The measurements of one kind, in order."""
        return [measurement for measurement in self.measurements if measurement.kind == kind]


def _plan(raw: Mapping[str, Any]) -> Plan:
    prompts, generations, depths = (tuple(int(n) for n in raw[key]) for key in ("prompts", "generations", "depths"))
    return Plan(prompts, generations, depths, int(raw["repetitions"]))


def _measurement(raw: Mapping[str, Any]) -> Measurement:
    measurement = Measurement(**{field.name: raw[field.name] for field in fields(Measurement)})
    samples = tuple(float(sample) for sample in measurement.samples)
    if measurement.kind not in LABELS or not samples:
        raise ValueError(f"no such measurement: {measurement.kind!r}")
    return Measurement(measurement.kind, measurement.unit, samples, measurement.tokens, measurement.depth)


@dataclass(frozen=True)
class Comparison:
    """The same thing in two results; `ratio` is the first's mean over the second's, None over 0."""

    first: Measurement
    second: Measurement

    @property
    def ratio(self) -> float | None:
        return self.first.mean / self.second.mean if self.second.mean else None


def compare(first: Result, second: Result) -> list[Comparison]:
    """What both results have, in the first's order."""
    others = {(m.kind, m.tokens, m.depth): m for m in second.measurements}
    return [
        Comparison(measurement, others[key])
        for measurement in first.measurements
        if (key := (measurement.kind, measurement.tokens, measurement.depth)) in others
    ]


def report_dict(results: Sequence[Result]) -> dict[str, Any]:
    """One or two results as the JSON object `docs/bench-schema.json` describes; two are compared in it."""
    report: dict[str, Any] = {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "results": [result.as_dict() for result in results],
    }
    if len(results) == 2:
        report["comparison"] = [
            {
                "name": pair.first.name,
                "unit": pair.first.unit,
                "means": [pair.first.mean, pair.second.mean],
                "ratio": pair.ratio,
            }
            for pair in compare(*results)
        ]
    return report


def read_result(path: Path) -> Result:
    """The first result in a report that `bench --format json` wrote.

    Raises:
        InputError: there is no such file, or it holds something else; the file is named.
    """
    try:
        raw = json.loads(read_small_text(path))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: give what `gemma4-mlx bench --format json` wrote") from error
    if not isinstance(raw, Mapping) or raw.get("schema") != SCHEMA:
        raise InputError(f"{path} is no benchmark's result: give what `gemma4-mlx bench --format json` wrote")
    if raw.get("schema_version") != SCHEMA_VERSION:
        raise InputError(
            f"{path} has form {raw.get('schema_version')!r}, and this gemma4-mlx reads form {SCHEMA_VERSION}: "
            "measure again"
        )
    try:
        return Result.from_dict(raw["results"][0])
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"{path} was changed since it was written ({reason}): measure again") from error
