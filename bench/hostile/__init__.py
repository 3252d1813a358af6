"""Pictures, sounds and videos that want to hurt who opens them, made from a seed, and a process to read them in.

Bombs, headers that lie, playlists, other formats under a good name, and honest files cut and mutated.
"""

from .files import Hostile, hostile_files
from .reading import MEMORY, SECONDS, WAIT, Read, tried

__all__ = ["MEMORY", "SECONDS", "WAIT", "Hostile", "Read", "hostile_files", "tried"]
