"""What Prometheus and its like are told: counts since the start, in their text format."""

from __future__ import annotations

from .engine import Engine


def metrics_text(engine: Engine) -> str:
    """The counts as text."""
    counts = engine.counts
    rows = [
        ("requests_total", "counter", "Requests that were taken in.", counts.requests),
        ("requests_in_work", "gauge", "Requests that have not ended, waiting ones among them.", engine.in_work),
        ("prompt_tokens_total", "counter", "Tokens of prompts.", counts.prompt_tokens),
        (
            "cached_tokens_total",
            "counter",
            "Tokens of prompts that were known from earlier ones.",
            counts.cached_tokens,
        ),
        ("generated_tokens_total", "counter", "Tokens of answers.", engine.tokens_written),
        ("peak_memory_bytes", "gauge", "The most that was in use so far.", counts.peak_memory_bytes),
    ]
    lines = []
    for name, kind, meaning, value in rows:
        lines += [f"# HELP gemma4_{name} {meaning}", f"# TYPE gemma4_{name} {kind}", f"gemma4_{name} {value}"]
    return "\n".join([*lines, ""])
