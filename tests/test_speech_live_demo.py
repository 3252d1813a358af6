"""Live speech with the built-in model: voices it has never met, heard piece by piece, come out as they do at once."""

from __future__ import annotations

from functools import cache

import numpy as np

import gemma4_mlx as g4
from demo_inputs import RECORDINGS, word_errors
from gemma4_mlx.processing.audio import load_audio
from gemma4_mlx.speech import Event

RATE = 16_000
PAUSE = np.zeros(int(1.2 * RATE), np.float32)


@cache
def demo():
    return g4.load("demo")


@cache
def heard() -> tuple[list[tuple[float, Event]], list[tuple[float, float]]]:
    """All recordings one after another with pauses: events with the second they came at, and where each is."""
    sound, spans, at = [PAUSE], [], len(PAUSE)
    for recording in RECORDINGS:
        samples = load_audio(recording.path)
        spans.append((at / RATE, (at + len(samples)) / RATE))
        sound += [samples, PAUSE]
        at += len(samples) + len(PAUSE)
    stream, events = np.concatenate(sound), []
    with g4.LiveTranscriber(*demo(), language="English", silence=1.0) as live:
        for start in range(0, len(stream), RATE // 10):
            new = live.feed(stream[start : start + RATE // 10])
            events += [(min(start + RATE // 10, len(stream)) / RATE, event) for event in new]
        events += [(len(stream) / RATE, event) for event in live.finish()]
    return events, spans


def finals_of(span: tuple[float, float]) -> list[tuple[float, Event]]:
    events, _ = heard()
    middle = [(at, event) for at, event in events if event.kind == "final"]
    return [(at, event) for at, event in middle if span[0] <= (event.start + event.end) / 2 <= span[1]]


def test_what_is_heard_live_is_what_is_heard_at_once():
    live_errors = whole_errors = 0
    for recording, span in zip(RECORDINGS, heard()[1], strict=True):
        live = " ".join(event.text for _, event in finals_of(span))
        live_errors += word_errors(live, recording.transcript)
        whole_errors += word_errors(g4.transcribe(*demo(), recording.path, "English").text, recording.transcript)
    digits = sum(len(recording.digits) for recording in RECORDINGS)
    assert live_errors <= whole_errors + 0.1 * digits
    assert live_errors <= 0.5 * digits


def test_a_final_comes_with_the_end_of_its_silence():
    for span in heard()[1]:
        finals = finals_of(span)
        assert finals
        at, last = finals[-1]
        assert last.end <= span[1] + 0.6
        assert at <= span[1] + 1.0 + 0.25


def test_partials_come_before_their_final_and_begin_with_what_is_certain():
    events = [event for _, event in heard()[0]]
    partials = [event for event in events if event.kind == "partial"]
    assert len(partials) >= len(RECORDINGS)
    certain = ""
    for event in events:
        assert event.text.startswith(event.certain)
        if event.kind == "partial":
            assert event.certain.startswith(certain)
        certain = event.certain if event.kind == "partial" else ""
    assert any(event.certain for event in partials)
