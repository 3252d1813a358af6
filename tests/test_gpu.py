"""How work is divided by what MLX says of the machine, also of machines that nobody here has."""

from __future__ import annotations

import mlx.core as mx
import pytest

from gemma4_mlx.model.gpu import Gpu, gpu_of, this_gpu
from gemma4_mlx.speech.prefill import batch_samples


@pytest.mark.parametrize(
    ("info", "gpu"),
    [
        ({"architecture": "applegpu_g13g", "max_recommended_working_set_size": 5 << 30}, Gpu(13, 5 << 30)),
        ({"architecture": "applegpu_g17s", "max_recommended_working_set_size": 96 << 30}, Gpu(17, 96 << 30)),
        ({"architecture": "air64_v27", "max_recommended_working_set_size": 5 << 30}, Gpu(None, 5 << 30)),
        ({"architecture": "applegpu_x1"}, Gpu(None, None)),
        ({"max_recommended_working_set_size": "much"}, Gpu(None, None)),
        ({"max_recommended_working_set_size": 0}, Gpu(None, None)),
        ({}, Gpu(None, None)),
    ],
)
def test_what_is_not_known_of_a_gpu_is_none(info, gpu):
    assert gpu_of(info) == gpu


@pytest.mark.skipif(mx.metal.is_available(), reason="this machine has one")
def test_without_metal_there_is_no_gpu():
    assert this_gpu() is None


@pytest.mark.parametrize(
    ("gpu", "tokens"),
    [(Gpu(13, None), 8), (Gpu(14, 1), 8), (Gpu(15, 1), 5), (Gpu(18, 1), 5), (Gpu(None, 1), 5), (None, 5)],
)
def test_m1_and_m2_read_sound_eight_tokens_at_a_time(gpu, tokens):
    assert batch_samples(gpu) == tokens * 640
