"""What macOS is asked to keep in memory: the weights of every model there is."""

from __future__ import annotations

import gc

from checkpoints import raw_config
from gemma4_mlx.checkpoint.wired_memory import WiredMemory
from gemma4_mlx.config import Config
from gemma4_mlx.model import Gemma4

GB = 10**9


def test_a_second_model_does_not_unwire_the_first_and_one_that_goes_takes_its_share_along() -> None:
    limits: list[int] = []
    wired = WiredMemory(limits.append, most=20 * GB)
    first, second = (Gemma4(Config.from_dict(raw_config("dense"))) for _ in range(2))
    wired.keep(first, 8 * GB)
    wired.keep(second, 5 * GB)
    del first
    gc.collect()
    del second
    gc.collect()
    assert limits == [round(n * 1.03) for n in (8 * GB, 13 * GB, 5 * GB, 0)]


def test_no_more_is_wired_than_the_system_lets_a_program_have() -> None:
    limits: list[int] = []
    wired = WiredMemory(limits.append, most=10 * GB)
    models = [Gemma4(Config.from_dict(raw_config("dense"))) for _ in range(2)]
    for model in models:
        wired.keep(model, 8 * GB)
    assert limits == [round(8 * GB * 1.03), 10 * GB]
