"""What every test needs: one thread for torch (two test processes share the machine) and no network."""

from __future__ import annotations

import os

import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")
torch.set_num_threads(1)
