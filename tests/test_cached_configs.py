"""A config.json that anybody put into the shared Hub cache costs the listing of models nothing."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from checkpoints import raw_config
from gemma4_mlx.checkpoint import hub_cache

HUGE = raw_config("e2b")
HUGE["text_config"] |= {"num_hidden_layers": 10**9, "layer_types": None}


@pytest.mark.parametrize(
    ("content", "says_so"),
    [
        (b'{"a":' * 200_000, False),
        (json.dumps(HUGE).encode(), True),
        (b"1" * 5000, False),
        (b"\xff", False),
        (b'{"model_type": "gemma4", "text_config": 3}', True),
    ],
    ids=["deep", "huge", "a long number", "no text", "half a config"],
)
def test_a_hostile_config_in_the_cache_ends_no_listing(
    content: bytes, says_so: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, written in (("bad", content), ("good", json.dumps(raw_config("e2b")).encode())):
        snapshot = tmp_path / f"models--x--{name}" / "snapshots" / ("0" * 40)
        snapshot.mkdir(parents=True)
        (snapshot / "config.json").write_bytes(written)
    monkeypatch.setattr(hub_cache, "cache_folder", lambda: tmp_path)
    start = time.perf_counter()
    assert hub_cache.cached_ids() == (["x/bad", "x/good"] if says_so else ["x/good"])
    assert time.perf_counter() - start < 2
