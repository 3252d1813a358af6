"""The sizes of the family: what each takes to fetch and to run. Whatever says such a number reads it here."""

from __future__ import annotations

from dataclasses import dataclass

# A machine sold with 16 GB reports a little less once firmware has taken its share.
_REPORTED_SHARE = 0.95


@dataclass(frozen=True)
class Size:
    """One size, as its short name fetches it.

    Attributes:
        name: short name.
        download_gb: to fetch, in units of 10⁹ bytes, as disks are sold.
        bits: of its weights.
        memory_gb: the least physical memory it is chosen for, in units of 2³⁰ bytes, as memory is sold. macOS gives the
            GPU two thirds to three quarters of it; a long prompt, pictures and the KV cache need room beside the
            weights, and so does everything else.
        hears: whether it takes sound.
        per_layer_table: whether it has a per-layer table, which may stay on disk.
    """

    name: str
    download_gb: float
    bits: int
    memory_gb: int
    hears: bool
    per_layer_table: bool = False

    @property
    def weights(self) -> str:
        """How large it is, for people: "5.5 GB at 8-bit"."""
        return f"{self.download} at {self.bits}-bit"

    @property
    def download(self) -> str:
        """What there is to fetch, for people: "5.5 GB"."""
        return f"{self.download_gb:g} GB"

    def fits(self, memory: int) -> bool:
        """Whether it is made for a machine with this much memory, in bytes."""
        return memory >= self.memory_gb * 2**30 * _REPORTED_SHARE


SIZES = (
    Size("31b", 18, bits=4, memory_gb=48, hears=False),
    Size("26b", 15, bits=4, memory_gb=32, hears=False),
    Size("12b", 13, bits=8, memory_gb=24, hears=True),
    Size("e4b", 8.5, bits=8, memory_gb=16, hears=True, per_layer_table=True),
    Size("e2b", 5.5, bits=8, memory_gb=8, hears=True, per_layer_table=True),
)
"""Largest first; the last one is taken when nothing fits.

12b is for 24 GB: with 32,000 tokens of context it takes 12.7 GB of weights and 0.9 GB of keys and values, and a Mac of
16 GB gives the GPU 11.5. In 4 bits (7 GB) it would fit there, but a size that hears comes in 8 (`SHORT_NAMES`).
"""
