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
    "content",
    [
        b'{"a":' * 200_000,
        json.dumps(HUGE).encode(),
        b"1" * 5000,
        b"\xff",
        b'{"model_type": "gemma4", "text_config": 3}',
    ],
    ids=["deep", "huge", "a long number", "no text", "half a config"],
)
def test_a_hostile_config_in_the_cache_is_no_gemma_4(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, written in (("bad", content), ("good", json.dumps(raw_config("e2b")).encode())):
        snapshot = tmp_path / f"models--x--{name}" / "snapshots" / ("0" * 40)
        snapshot.mkdir(parents=True)
        (snapshot / "config.json").write_bytes(written)
    monkeypatch.setattr(hub_cache, "_cache", lambda: tmp_path)
    start = time.perf_counter()
    assert list(hub_cache.cached_ids()) == ["x/good"]
    assert time.perf_counter() - start < 2
