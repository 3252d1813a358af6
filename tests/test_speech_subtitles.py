"""Subtitles that a strict reader accepts, in order, with every word of every segment."""

from __future__ import annotations

import html
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemma4_mlx.speech import Segment
from gemma4_mlx.speech.subtitles import captions, to_srt, to_vtt

TIME = r"(\d\d+):([0-5]\d):([0-5]\d){}(\d{{3}})"
SRT_TIMES = re.compile(rf"^{TIME.format(',')} --> {TIME.format(',')}$")
VTT_TIMES = re.compile(rf"^{TIME.format('[.]')} --> {TIME.format('[.]')}$")


def read_srt(text: str) -> list[tuple[float, float, list[str]]]:
    """A reader that forgives nothing."""
    return [_cue(block, SRT_TIMES, number) for number, block in enumerate(_blocks(text), start=1)]


def read_vtt(text: str) -> list[tuple[float, float, list[str]]]:
    assert text.startswith("WEBVTT\n\n")
    cues = [_cue(block, VTT_TIMES, None) for block in _blocks(text[len("WEBVTT\n\n") :])]
    for *_, lines in cues:
        for line in lines:
            assert not re.search(r"<|>|&(?!amp;|lt;|gt;)", line)
    return [(start, end, [html.unescape(line) for line in lines]) for start, end, lines in cues]


def _blocks(text: str) -> list[str]:
    if not text:
        return []
    assert text.endswith("\n\n")
    return text[:-2].split("\n\n")


def _cue(block: str, times: re.Pattern[str], number: int | None) -> tuple[float, float, list[str]]:
    lines = block.split("\n")
    if number is not None:
        assert lines.pop(0) == str(number)
    match = times.match(lines.pop(0))
    assert match
    h, m, s, ms, h2, m2, s2, ms2 = map(int, match.groups())
    start, end = h * 3600 + m * 60 + s + ms / 1000, h2 * 3600 + m2 * 60 + s2 + ms2 / 1000
    assert start < end
    assert lines
    assert all(line.strip() and "-->" not in line for line in lines)
    return start, end, lines


words = st.text(alphabet=st.characters(exclude_categories=("C", "Z")) | st.sampled_from(" <>&-."), max_size=300).map(
    lambda text: " ".join(text.split())
)
segments = st.lists(st.tuples(st.floats(0.2, 28), st.floats(0, 5), words, st.none() | words), max_size=6).map(
    lambda rows: list(_placed(rows))
)


def _placed(rows):
    at = 3590.0
    for length, gap, text, translation in rows:
        yield Segment(at + gap, at + gap + length, text, translation)
        at += gap + length


@given(segments)
def test_strict_readers_find_every_word_in_order_and_no_two_captions_at_once(said):
    for cues, arrow in ((read_srt(to_srt(said)), "→"), (read_vtt(to_vtt(said)), "-->")):
        assert all(before[1] <= after[0] + 0.001 for before, after in pairwise(cues))
        for segment in said:
            expected = {"".join(t.replace("-->", arrow).split()) for t in (segment.text, segment.translation or "")}
            shown = [
                lines for start, end, lines in cues if segment.start - 0.001 <= start and end <= segment.end + 0.001
            ]
            if segment.text and segment.translation is None:
                assert "".join("".join(line.split()) for lines in shown for line in lines) in expected


def test_a_translation_stands_below_what_was_said():
    assert to_srt([Segment(1, 2.5, "Hello.", "Bonjour.")]) == "1\n00:00:01,000 --> 00:00:02,500\nHello.\nBonjour.\n\n"
    assert to_vtt([Segment(1, 2.5, "a < b", None)]) == "WEBVTT\n\n00:00:01.000 --> 00:00:02.500\na &lt; b\n\n"


def test_what_is_too_long_to_read_at_once_is_shared_out_by_its_letters():
    text = " ".join(["ask not what your country can do for you"] * 6)
    parts = list(captions(Segment(10, 30, text, None)))
    assert len(parts) == 3
    assert all(len(part.lines[0]) <= 100 for part in parts)
    assert " ".join(part.lines[0] for part in parts) == text
    assert parts[0].start == 10
    assert parts[-1].end == pytest.approx(30)
    assert all(5 < part.end - part.start < 8 for part in parts)


def test_a_script_without_spaces_is_shared_out_too():
    parts = list(captions(Segment(0, 20, "你好" * 100, None)))
    assert len(parts) == 3
    assert "".join(part.lines[0] for part in parts) == "你好" * 100


def test_no_words_no_captions():
    assert to_srt([Segment(0, 1, "", None), Segment(1, 2, " ", "")]) == ""
    assert to_vtt([]) == "WEBVTT\n\n"
