"""gemma4-mlx: Google's Gemma 4 on Apple silicon.

The public names are listed here and imported on first use, so that `import gemma4_mlx` (and with it the command line's
`--help`) costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from threading import RLock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .conversion.convert import convert
    from .errors import (
        CheckpointError,
        ConfigError,
        ContextLengthError,
        DeviceError,
        Gemma4Error,
        HubError,
        InputError,
        MediaWarning,
        OutOfMemoryError,
    )
    from .generation import (
        Chat,
        Chunk,
        ConversationCache,
        Generation,
        LikelyToken,
        TokenLogprob,
        ToolCall,
        astream_generate,
        batch_generate,
        generate,
        generate_tokens,
        run_tools,
        score,
        stream_generate,
    )
    from .loading import load
    from .model import Gemma4, ModelInputs
    from .processing import CachedSource, Processor
    from .speech import Event, LiveTranscriber, Segment, Transcription, TranscriptionError
    from .speech.transcribe import transcribe

__version__ = "0.1.0"

_HOME_OF = {
    "CheckpointError": "errors",
    "ConfigError": "errors",
    "ContextLengthError": "errors",
    "DeviceError": "errors",
    "Gemma4Error": "errors",
    "HubError": "errors",
    "InputError": "errors",
    "MediaWarning": "errors",
    "OutOfMemoryError": "errors",
    "Gemma4": "model",
    "ModelInputs": "model",
    "CachedSource": "processing",
    "Processor": "processing",
    "convert": "conversion.convert",
    "Chat": "generation",
    "Chunk": "generation",
    "ConversationCache": "generation",
    "Generation": "generation",
    "LikelyToken": "generation",
    "TokenLogprob": "generation",
    "ToolCall": "generation",
    "astream_generate": "generation",
    "batch_generate": "generation",
    "generate": "generation",
    "generate_tokens": "generation",
    "run_tools": "generation",
    "score": "generation",
    "stream_generate": "generation",
    "load": "loading",
    "Event": "speech",
    "LiveTranscriber": "speech",
    "Segment": "speech",
    "Transcription": "speech",
    "TranscriptionError": "speech",
    "transcribe": "speech",
}

__all__ = [
    "CachedSource",
    "Chat",
    "CheckpointError",
    "Chunk",
    "ConfigError",
    "ContextLengthError",
    "ConversationCache",
    "DeviceError",
    "Event",
    "Gemma4",
    "Gemma4Error",
    "Generation",
    "HubError",
    "InputError",
    "LikelyToken",
    "LiveTranscriber",
    "MediaWarning",
    "ModelInputs",
    "OutOfMemoryError",
    "Processor",
    "Segment",
    "TokenLogprob",
    "ToolCall",
    "Transcription",
    "TranscriptionError",
    "__version__",
    "astream_generate",
    "batch_generate",
    "convert",
    "generate",
    "generate_tokens",
    "load",
    "run_tools",
    "score",
    "stream_generate",
    "transcribe",
]


# Two threads that import rooms which need each other can each wait for the other; Python then hands out half a module.
_importing = RLock()


def __getattr__(name: str) -> Any:
    with _importing:
        if name in _HOME_OF:
            return getattr(import_module(f".{_HOME_OF[name]}", __name__), name)
        # `gemma4_mlx.config` and the other rooms, without an import of their own.
        if name in ("config", "errors", "model", "checkpoint", "conversion", "processing", "generation", "speech"):
            return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
