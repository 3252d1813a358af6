"""How much memory this machine has, and how a number of bytes is written."""

from __future__ import annotations

import os


def physical_memory() -> int:
    """Bytes of memory in this machine."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def byte_size(count: int) -> str:
    """A file's or a download's size: "5.5 GB", "281 MB", "4.3 MB"."""
    if count >= 1e9:
        return f"{count / 1e9:.1f} GB"
    return f"{count / 1e6:.{0 if count >= 1e7 else 1}f} MB"


def memory_size(count: int) -> str:
    """A machine's memory, as its makers count it: "16 GB" is 16 * 2**30 bytes."""
    return f"{count / 2**30:.0f} GB"
