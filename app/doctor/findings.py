"""What a look at this machine is, and what it finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warning", "failed"]


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes:
        name: a word or two for what was looked at.
        status: "warning" is something that works less well, or not here; "failed" must be mended.
        text: what was found and, unless it is well, what to do.
    """

    name: str
    status: Status
    text: str


@dataclass(frozen=True)
class Check:
    """A look at something.

    Attributes:
        name: what its finding is called when it cannot be made.
        look: does it.
        waits: it mostly waits for others, and so do several at a time in threads. The rest is done one by one.
    """

    name: str
    look: Callable[[], list[Finding]]
    waits: bool = True
