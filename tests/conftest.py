"""What every test needs: one thread for torch, since two test processes share the machine, and Ctrl-C."""

from __future__ import annotations

import signal

import torch

torch.set_num_threads(1)

# A shell without job control has what it starts in the background ignore SIGINT, and the commands that tests start and
# interrupt would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
