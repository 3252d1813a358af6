"""What every test needs: one thread for torch, since two test processes share the machine."""

from __future__ import annotations

import torch

torch.set_num_threads(1)
