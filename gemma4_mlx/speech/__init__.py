"""Speech to text: recordings of any length, cut at pauses, written down and translated by a model that hears."""

from gemma4_mlx.speech.transcribe import Segment, Transcription, TranscriptionError, transcribe

__all__ = ["Segment", "Transcription", "TranscriptionError", "transcribe"]
