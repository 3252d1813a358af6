"""The first run: no model named and none here, so a person is asked which one to fetch.

What is shown comes from the table of sizes, so that nothing is asked over the network before the person has chosen.
"""

from __future__ import annotations

from dataclasses import dataclass

from gemma4_mlx.byte_sizes import memory_size
from gemma4_mlx.checkpoint.builtin import DEMO
from gemma4_mlx.errors import Gemma4Error

from ..settings import config_file, remember_model
from ..terminal import note
from ..typed_ahead import asked
from .sizes import SIZES, Size


@dataclass(frozen=True)
class Offer:
    """What can be chosen, the proposed size first.

    Attributes:
        sizes: that can be fetched.
        here: names of those that need not be fetched.
        memory: of this machine, in bytes.
        free: bytes on the disk they would be fetched to.
        demo: the built-in model can be talked to meanwhile.
    """

    sizes: tuple[Size, ...]
    here: frozenset[str]
    memory: int
    free: int
    demo: bool

    @property
    def names(self) -> list[str]:
        """In the order of their numbers, which begin with 1."""
        return [size.name for size in self.sizes] + [DEMO] * self.demo

    def lines(self) -> list[str]:
        """What a person reads; but for the first, each fits into 40 columns."""
        room = f"this machine has {memory_size(self.memory)} of memory and {self.free / 1e9:.0f} GB of disk free"
        listed = [f"this is the first run: which model shall be fetched, this once? ({room})"]
        listed += [f"  {number}  {size.name:<4}  {self._about(size)}" for number, size in enumerate(self.sizes, 1)]
        if self.demo:
            listed.append(f"  {len(self.names)}  {DEMO}  built in; fetch {self.sizes[0].name} meanwhile")
        return listed

    def _about(self, size: Size) -> str:
        if size.name in self.here:
            return "is here already"
        if size.download_gb * 1e9 > self.free:
            return f"{size.download:>6}, too big for the disk"
        if not size.fits(self.memory):
            return f"{size.download:>6}, too big: wants {size.memory_gb} GB"
        return f"{size.download:>6}, for {size.memory_gb} GB of memory"

    def chosen(self, typed: str) -> str | None:
        """The name that a typed number or name stands for; nothing typed is the proposed one; None: neither."""
        word = typed.strip().lower()
        if not word:
            return self.names[0]
        if word.isdecimal() and 1 <= int(word) <= len(self.names):
            return self.names[int(word) - 1]
        return word if word in self.names else None


def make_offer(proposed: str, memory: int, hearing: bool, demo: bool) -> Offer | None:
    """What to offer in place of fetching `proposed` unasked; None when it is here, or nothing can be fetched.

    Args:
        proposed: a short name.
        memory: of this machine, in bytes.
        hearing: only sizes that take sound.
        demo: offer the built-in model as well.
    """
    from huggingface_hub import constants

    from gemma4_mlx.checkpoint.hub import SHORT_NAMES, free_disk
    from gemma4_mlx.checkpoint.hub_cache import is_whole

    if constants.HF_HUB_OFFLINE or is_whole(SHORT_NAMES[proposed]):
        return None
    sizes = [size for size in SIZES if size.hears or not hearing]
    # Then what fits, largest first; what is too large comes last.
    sizes.sort(key=lambda size: (size.name != proposed, not size.fits(memory)))
    here = frozenset(size.name for size in sizes if is_whole(SHORT_NAMES[size.name]))
    return Offer(tuple(sizes), here, memory, free_disk()[1], demo)


def ask_which(offer: Offer) -> str:
    """Ask until a name is chosen, which is returned.

    Raises:
        Gemma4Error: the terminal was closed.
        KeyboardInterrupt: Ctrl-C.
    """
    for line in offer.lines():
        note(line)
    while True:
        typed = asked(f"which one? a number or a name, Enter for {offer.names[0]}: ")
        if not typed:
            note("")
            raise Gemma4Error("no model was chosen: name one with --model")
        name = offer.chosen(typed)
        if name is not None:
            break
        note(f"choose one of {', '.join(offer.names)}")
    return name


def remember(name: str) -> None:
    """Write a choice into the config file, so that it is made once; the person is told."""
    file = config_file()
    try:
        remember_model(name, file)
    except OSError as error:
        note(f"note: {name} is not remembered ({file}: {error.strerror}): name it with --model next time")
    else:
        note(f'{name} it is, from now on: model = "{name}" is now in {file}')
