"""Whether this machine computes Gemma 4 rightly: every kind of kernel the model uses, against float32 on the CPU.

The tests of this repository run where there is no GPU. This is what each Mac can run for itself, in a minute and
without a download.
"""

from .check import Check
from .run import SCHEMA_VERSION, self_test

__all__ = ["SCHEMA_VERSION", "Check", "self_test"]
