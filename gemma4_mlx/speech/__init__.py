"""Speech to text: recordings of any length and sound still coming in, written down and translated."""

from .live import Event, LiveTranscriber
from .transcribe import Segment, Transcription, TranscriptionError, transcribe

__all__ = ["Event", "LiveTranscriber", "Segment", "Transcription", "TranscriptionError", "transcribe"]
