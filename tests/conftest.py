"""What every test needs: one thread for torch, since two test processes share the machine, Ctrl-C, and patience."""

from __future__ import annotations

import os
import signal

import hypothesis
import torch

torch.set_num_threads(1)

# Newer GPUs compute float32 products in a shorter format unless told otherwise; what is compared here is exact.
os.environ.setdefault("MLX_ENABLE_TF32", "0")

# A shell without job control has what it starts in the background ignore SIGINT, and the commands that tests start and
# interrupt would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes is the machine's business. With CI in the environment, hypothesis also has every run try the
# same examples.
hypothesis.settings.register_profile("patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("patient")
