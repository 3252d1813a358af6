"""What `dir` and `help` show of a class that stands on one with a hundred names of its own."""

from __future__ import annotations


class OwnNames(type):
    """Of a class and its instances, shows what the class says itself, not what it inherits from elsewhere."""

    def __dir__(cls) -> list[str]:
        own = (kind for kind in cls.__mro__ if isinstance(kind, OwnNames))
        return sorted({name for kind in own for name in vars(kind)})
