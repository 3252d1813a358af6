"""Sound of every kind → 16 kHz mono → log-mel, against transformers' feature extractor and soxr itself."""

from __future__ import annotations

import contextlib
import io
import wave
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.gemma4.feature_extraction_gemma4 import Gemma4AudioFeatureExtractor

from gemma4_mlx.errors import InputError
from gemma4_mlx.log_mel import HOP, LEAD, frame_count, log_mel, log_mel_frames, mel_filters, soft_token_count
from gemma4_mlx.processing.audio import audio_duration, load_audio, stream_audio
from processing_reference import SPEECH, our_processor

EXTRACTOR = Gemma4AudioFeatureExtractor()


def tone(seconds: float, rate: int, hertz: float = 440.0) -> np.ndarray:
    """A sine that swells, so that a shift in time shows."""
    time = np.arange(round(seconds * rate)) / rate
    return (0.5 * time / seconds * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


def wav(samples: np.ndarray, rate: int = 16_000) -> bytes:
    """16-bit wav of float samples `[n]` or `[n, channels]`."""
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples * 32767).round().astype("<i2").tobytes())
    return stream.getvalue()


def encoded(container: str, codec: str, rate: int, layout: str) -> bytes:
    """One second of `tone`, the same in every channel, in the container and codec given."""
    stream = io.BytesIO()
    with av.open(stream, "w", format=container) as file:
        track = file.add_stream(codec, rate=rate, layout=layout)
        channels = len(av.AudioLayout(layout).channels)
        frame = av.AudioFrame.from_ndarray(np.tile(tone(1, rate), (channels, 1)), format="fltp", layout=layout)
        frame.sample_rate = rate
        fit = av.AudioResampler(track.codec_context.format, layout, rate, track.codec_context.frame_size or None)
        for piece in [*fit.resample(frame), *fit.resample(None)]:
            file.mux(track.encode(piece))
        file.mux(track.encode(None))
    return stream.getvalue()


FORMATS = [
    ("wav", "pcm_s16le", 16_000, "mono"),
    ("wav", "pcm_u8", 8_000, "mono"),
    ("wav", "pcm_s24le", 48_000, "stereo"),
    ("wav", "pcm_f32le", 44_100, "5.1"),
    ("wav", "pcm_mulaw", 8_000, "mono"),
    ("aiff", "pcm_s16be", 22_050, "stereo"),
    ("flac", "flac", 96_000, "stereo"),
    ("mp3", "libmp3lame", 44_100, "stereo"),
    ("ipod", "aac", 44_100, "stereo"),  # .m4a
    ("mov", "aac", 48_000, "mono"),
    ("ogg", "libopus", 48_000, "stereo"),
    ("webm", "libopus", 48_000, "mono"),
]


@pytest.mark.parametrize(("container", "codec", "rate", "layout"), FORMATS)
def test_every_format_rate_and_channel_count_gives_the_sound_at_16_khz(
    container: str, codec: str, rate: int, layout: str, tmp_path: Path
) -> None:
    content = encoded(container, codec, rate, layout)
    path = tmp_path / "sound"
    path.write_bytes(content)
    samples = load_audio(path)
    np.testing.assert_array_equal(load_audio(content), samples)
    assert samples.dtype == np.float32
    assert samples.ndim == 1
    assert abs(len(samples) - 16_000) < 1_100  # codecs with frames of 1,024 fill up the last one
    # Codecs may shift the sound by a frame: compare at the best shift.
    expected = tone(1, 16_000)
    best = max(np.corrcoef(samples[shift : shift + 14_000], expected[1_000:15_000])[0, 1] for shift in range(0, 2_000))
    assert best > 0.98
    duration = audio_duration(path)
    assert duration is None or abs(duration - 1) < 0.1


@pytest.mark.parametrize("title", [b"Caf\xe9", b"\xff\xfe", "Café".encode(), "会議".encode("shift_jis")])
def test_a_title_in_any_encoding_does_not_matter(title: bytes) -> None:
    plain = wav(np.zeros(1600))
    title += bytes(len(title) % 2)
    tags = b"INFOINAM" + len(title).to_bytes(4, "little") + title
    titled = plain + b"LIST" + len(tags).to_bytes(4, "little") + tags
    assert len(load_audio(titled[:4] + (len(titled) - 8).to_bytes(4, "little") + titled[8:])) == 1600


def test_a_whole_file_is_resampled_as_soxr_resamples_it_in_one_go() -> None:
    samples = (0.1 * np.random.default_rng(0).standard_normal((44_100, 2))).astype(np.float32)
    stored = np.frombuffer(wav(samples, 44_100)[44:], "<i2").reshape(-1, 2) / 32768
    expected = soxr.resample(stored.astype(np.float32).mean(axis=1), 44_100, 16_000, quality="HQ")
    np.testing.assert_allclose(load_audio(wav(samples, 44_100)), expected, atol=1e-6)
    np.testing.assert_allclose(load_audio((stored, 44_100)), expected, atol=1e-6)


@pytest.mark.parametrize("channels", [3, 8, 9, 17, 32])
def test_a_recording_of_many_tracks_is_mixed_down(channels: int) -> None:
    tracks = (0.1 * np.random.default_rng(0).standard_normal((3200, channels))).astype(np.float32)
    np.testing.assert_allclose(load_audio(wav(tracks)), tracks.mean(axis=1), atol=1e-4)


def test_samples_in_every_form_are_the_same_sound() -> None:
    eight_bits = np.round(np.sin(np.arange(3200) / 9) * 120).astype(np.int64)
    expected = (eight_bits / 128).astype(np.float32)
    forms: list[Any] = [
        expected,
        expected.astype(np.float64),
        expected.tolist(),
        (expected, 16_000),
        (eight_bits.astype(np.int16) * 256, 16_000),
        (eight_bits.astype(np.int32) * 2**24, 16_000.0),
        ((eight_bits + 128).astype(np.uint8), np.int64(16_000)),
        np.stack([expected, expected]),
        np.stack([expected * 2, expected * 0], axis=1),
    ]
    for form in forms:
        np.testing.assert_allclose(load_audio(form), expected, atol=1e-7)


def test_thirty_seconds_are_taken_and_one_sample_more_is_not() -> None:
    assert len(load_audio(np.zeros(480_000, np.float32))) == 480_000
    with pytest.raises(InputError, match=r"30 s .*gemma4-mlx transcribe.*gemma4_mlx\.transcribe"):
        load_audio(np.zeros(480_001, np.float32))


def test_an_hour_is_refused_without_decoding_it(tmp_path: Path) -> None:
    path = tmp_path / "hour.wav"
    path.write_bytes(wav(np.zeros(1600)))
    with path.open("r+b") as file:
        file.truncate(2 * 8_000 * 3600)  # a hole on disk: reading it whole would take a while
        file.seek(4)
        file.write((2 * 8_000 * 3600 - 8).to_bytes(4, "little"))
        file.seek(40)
        file.write((2 * 8_000 * 3600 - 44).to_bytes(4, "little"))
    message = {"role": "user", "content": [{"type": "audio", "audio": str(path)}]}
    with pytest.raises(InputError, match=r"hour\.wav is longer than the 30 s"):
        our_processor()([message])


REFUSED: dict[str, tuple[Any, str]] = {
    "five samples": (wav(np.zeros(5)), r"too short \(5 samples at 16 kHz\)"),
    "160 samples": (np.zeros(160, np.float32), r"too short \(160 samples"),
    "no samples": (wav(np.zeros(0)), "has no samples"),
    "0 bytes": (b"", "empty"),
    "a text file": (b"Dear Anna, this is a letter.\n" * 9, "not a sound file|no sound in it"),
    "noise bytes": (bytes(range(256)) * 20, "not a sound file|no sound in it"),
    "half a header": (wav(np.zeros(1600))[:20], "not a sound file|too short"),
    "half an m4a": (encoded("ipod", "aac", 44_100, "mono")[:3000], "not a sound file|damaged"),
    "NaN": (np.full(1600, np.nan, np.float32), "NaN or infinite"),
    "infinity": ((np.array([0.0, np.inf] * 800), 44_100), "NaN or infinite"),
    "no rate": ((np.zeros(1600), 0), "rate of 0 Hz"),
    "a negative rate": ((np.zeros(1600), -16_000), "rate of -16000 Hz"),
    "a NaN rate": ((np.zeros(1600), float("nan")), "rate of nan Hz"),
    "a rate in words": ((np.zeros(1600), "16k"), "rate of '16k' Hz"),
    "three things": ((np.zeros(1600), 16_000, 1), "give .samples, rate."),
    "three dimensions": (np.zeros((2, 2, 1600)), "3 dimensions"),
    "int64": (np.zeros(1600, np.int64), "int64 samples"),
    "words": (["a", "b"], "samples: give float"),
    "a ragged list": ([[1.0], [2.0, 3.0]], "not an array of samples"),
    "None": (None, "cannot be a NoneType: give a path"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_sound_that_cannot_be_used_is_refused_in_one_line(name: str) -> None:
    source, words = REFUSED[name]
    with pytest.raises(InputError, match=words) as caught:
        load_audio(source)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    silent = tmp_path / "picture.png"
    with av.open(str(silent), "w", format="image2") as file:
        track = file.add_stream("png", rate=1)
        track.width, track.height, track.pix_fmt = 16, 16, "rgb24"
        file.mux(track.encode(av.VideoFrame(16, 16, "rgb24")))
        file.mux(track.encode(None))
    with pytest.raises(InputError, match=r"picture\.png is not a sound file: give one, such as m4a"):
        load_audio(silent)
    with pytest.raises(InputError, match=r"picture\.png is not a sound file: give one, such as m4a"):
        audio_duration(silent)
    with pytest.raises(InputError, match=r"gone\.wav does not exist"):
        load_audio(tmp_path / "gone.wav")
    with pytest.raises(InputError, match="is a folder, not a sound"):
        load_audio(tmp_path)


def test_a_playlist_that_poses_as_a_recording_opens_nothing() -> None:
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{SPEECH.as_uri()}\n#EXT-X-ENDLIST\n"
    with pytest.raises(InputError):
        load_audio(playlist.encode())


@pytest.mark.parametrize("block_seconds", [0.01, 0.5, 1.0, 7.0])
def test_blocks_put_together_are_the_whole(block_seconds: float) -> None:
    content = encoded("mp3", "libmp3lame", 44_100, "stereo")
    blocks = list(stream_audio(content, block_seconds))
    assert {len(block) for block in blocks[:-1]} <= {round(16_000 * block_seconds)}
    assert 0 < len(blocks[-1]) <= round(16_000 * block_seconds)
    np.testing.assert_array_equal(np.concatenate(blocks), load_audio(content))


def test_a_long_sound_streams_without_the_limit_of_a_message_part() -> None:
    blocks = list(stream_audio((np.zeros(40 * 8_000, np.int16), 8_000), 10.0))
    assert [len(block) for block in blocks] == [160_000] * 4


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_what_was_decoded_before_the_damage_comes_before_the_error(rate: int) -> None:
    whole = (0.1 * np.random.default_rng(1).standard_normal(4 * rate)).astype(np.float32)
    stream = io.BytesIO()
    with av.open(stream, "w", format="flac") as file:
        track = file.add_stream("flac", rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray((whole * 32767).astype(np.int16)[None], format="s16", layout="mono")
        frame.sample_rate = rate
        fit = av.AudioResampler("s16", "mono", rate, track.codec_context.frame_size or 4608)
        for piece in [*fit.resample(frame), *fit.resample(None)]:
            file.mux(track.encode(piece))
        file.mux(track.encode(None))
    content = stream.getvalue()
    received: list[np.ndarray] = []
    with pytest.raises(InputError, match="damaged"):
        received.extend(stream_audio(content[: len(content) // 2], 0.25))
    samples = np.concatenate(received)
    assert 1.5 * 16_000 < len(samples) < 2.1 * 16_000
    expected = load_audio((whole, rate))[: len(samples)]
    # The last samples are resampled with silence after them instead of what was lost.
    np.testing.assert_allclose(samples[:-500], expected[:-500], atol=1e-3)


def test_a_nan_anywhere_in_given_samples_is_refused_before_any_of_them_is_heard() -> None:
    samples = np.zeros(32_000, np.float32)
    samples[20_000] = np.nan
    blocks = stream_audio((samples, 16_000))
    with pytest.raises(InputError, match="NaN"):
        next(blocks)


@pytest.mark.parametrize("block_seconds", [0, -1.0, 1e-9, float("nan")])
def test_a_block_of_no_length_is_a_value_error(block_seconds: float) -> None:
    with pytest.raises(ValueError, match="block_seconds"):
        stream_audio(SPEECH, block_seconds)


def reference_log_mel(samples: np.ndarray) -> np.ndarray:
    features = EXTRACTOR([samples], return_tensors="np")
    return features["input_features"][0][features["input_features_mask"][0]]


def test_log_mel_of_speech_is_the_reference_s() -> None:
    samples = load_audio(SPEECH)
    ours = log_mel(samples)
    assert ours.dtype == np.float32
    assert ours.shape == (frame_count(len(samples)), 128)
    np.testing.assert_allclose(ours, reference_log_mel(samples), atol=1e-4)


@given(st.integers(1, 6_000), st.sampled_from([1e-4, 0.1, 1.0]), st.integers(0, 9))
@settings(max_examples=50)
def test_log_mel_of_noise_of_any_length_and_level_is_the_reference_s(length: int, level: float, seed: int) -> None:
    samples = (level * np.random.default_rng(seed).standard_normal(length)).astype(np.float32)
    ours = log_mel(samples)
    theirs = reference_log_mel(samples)
    assert ours.shape == theirs.shape == (frame_count(length), 128)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_mel_filters_are_the_reference_s_htk_filters() -> None:
    np.testing.assert_allclose(mel_filters(), EXTRACTOR.mel_filters, atol=1e-12)


@pytest.mark.parametrize("remainder", [0, 1, 80, 159, 160, 161, 320, 639])
def test_soft_tokens_follow_the_two_halvings_of_the_reference(remainder: int) -> None:
    for samples in range(remainder, 20_000, 640):
        frames = (
            len(reference_log_mel(np.zeros(max(samples, 1), np.float32))) if samples < 2_000 else frame_count(samples)
        )
        once = (frames + 1) // 2
        assert soft_token_count(samples) == (once + 1) // 2


def test_log_mel_frames_of_consecutive_pieces_are_those_of_the_whole() -> None:
    samples = load_audio(SPEECH)
    padded = np.concatenate([np.zeros(LEAD, np.float32), samples])
    whole = log_mel(samples)
    pieces: list[np.ndarray] = []
    waiting = np.zeros(0, np.float32)
    for piece in np.split(padded, [100, 500, 501, 9_000, 30_000]):
        waiting = np.concatenate([waiting, piece])
        frames = log_mel_frames(waiting)
        waiting = waiting[len(frames) * HOP :]
        pieces.append(frames)
    np.testing.assert_allclose(np.concatenate(pieces), whole, atol=1e-5)


@given(st.sampled_from(["wav", "flac", "mp3", "ipod"]), st.data())
@settings(max_examples=80)
def test_damage_anywhere_is_an_error_of_ours_or_a_sound(form: str, data: st.DataObject) -> None:
    content = bytearray(DAMAGEABLE[form])
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=10)):
        content[place] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(1, len(content)))]
    with contextlib.suppress(InputError):
        assert np.isfinite(load_audio(bytes(content))).all()


DAMAGEABLE = {
    "wav": wav(tone(0.5, 16_000)),
    "flac": SPEECH.read_bytes(),
    "mp3": encoded("mp3", "libmp3lame", 44_100, "mono"),
    "ipod": encoded("ipod", "aac", 44_100, "mono"),
}
