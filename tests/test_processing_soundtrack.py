"""Files as people have them: broken packets, joined files, late tracks, holes, which track and channel speaks."""

from __future__ import annotations

import io
import warnings
from typing import Any

import av
import numpy as np
import pytest

from gemma4_mlx.errors import InputError, MediaWarning
from gemma4_mlx.processing.audio import audio_duration, load_audio, stream_audio
from media_files import Track, broken, bursts, file_of, onsets

# Half a second of a tone at 1 and at 4 s of six.
SOUND = bursts(6, (1, 4))
AT_44100 = bursts(6, (1, 4), 44_100)


def heard(content: bytes) -> tuple[list[float], list[str]]:
    """When something is heard on the file's clock, and what is said about the file."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        samples = np.concatenate(list(stream_audio(content)))
    assert all(issubclass(warning.category, MediaWarning) for warning in said)
    return onsets(samples), [str(warning.message) for warning in said]


BREAKABLE = [
    ("mp3", "libmp3lame"),
    ("mp4", "aac"),
    ("matroska", "libmp3lame"),
    ("mpegts", "aac"),
    ("ac3", "ac3"),
    ("adts", "aac"),
]


@pytest.mark.parametrize(("container", "codec"), BREAKABLE)
@pytest.mark.parametrize("place", [2.0, 5.0])
def test_broken_packets_are_left_out_with_one_note_and_the_rest_is_heard(
    container: str, codec: str, place: float
) -> None:
    content = file_of(container, Track(SOUND, codec=codec))
    damaged = broken(content, place, place + 0.08, fill=b"\xff")
    times, said = heard(damaged)
    assert times == pytest.approx([1, 4], abs=0.15)
    assert len(said) == 1
    assert "is damaged" in said[0]
    assert f"at 0:0{place:.0f}" in said[0]
    assert "s of sound" in said[0]
    with pytest.warns(MediaWarning, match="is damaged"):
        assert len(load_audio(damaged)) > 5.8 * 16_000


def test_every_other_packet_may_be_broken() -> None:
    content = file_of("matroska", Track(SOUND))
    for begin in np.arange(0.2, 5.8, 0.5):
        content = broken(content, begin, begin + 0.05, fill=b"\xff")
    times, (said,) = heard(content)
    assert times == pytest.approx([1, 4], abs=0.1)
    assert " places, the first at 0:00, " in said


def test_a_track_whose_decoder_cannot_be_opened_is_an_error() -> None:
    content = bytearray(file_of("wav", Track(SOUND, codec="pcm_s16le")))
    content[content.index(b"fmt ") + 11] = 2  # 513 channels
    with pytest.raises(InputError, match="is damaged"):
        load_audio(bytes(content))


def test_samples_that_are_no_numbers_are_left_out_like_a_broken_packet() -> None:
    sound = np.stack([SOUND, SOUND])
    sound[1, 100_000:101_000] = np.nan
    sound[0, 200_000] = np.inf
    times, (said,) = heard(file_of("wav", Track(sound, codec="pcm_f32le")))
    assert times == pytest.approx([1, 4], abs=0.05)
    assert "s of sound in 2 places, the first at 0:02, could not be decoded" in said


def test_a_file_of_which_nothing_can_be_decoded_is_an_error() -> None:
    content = broken(file_of("mp4", Track(SOUND)), 0, 10, fill=b"\xff")
    for listen in (load_audio, heard):
        with pytest.raises(InputError, match="is damaged"):
            listen(content)


def test_nothing_more_is_expected_behind_many_broken_packets_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """A million of them, of eight bytes each, would take half a minute."""
    good = file_of("adts", Track(bursts(1.0, [0.3])))
    content = good + b"\xff\xf1\x50\x80\x01\x1f\xfc\0" * 600 + good
    with pytest.warns(MediaWarning, match="is damaged"):
        assert sum(map(len, stream_audio(content))) > 1.8 * 16_000
    monkeypatch.setattr("gemma4_mlx.processing.containers.BROKEN_PACKETS", 500)
    blocks = stream_audio(content, 0.5)
    assert len(next(blocks)) + len(next(blocks)) == 16_000
    with pytest.raises(InputError, match="is damaged"):
        list(blocks)


def test_a_file_whose_end_is_broken_is_an_error_behind_what_could_be_decoded() -> None:
    content = broken(file_of("mp4", Track(SOUND)), 3, 10, fill=b"\xff")
    blocks: list[Any] = []
    with pytest.raises(InputError, match="is damaged"):
        blocks.extend(stream_audio(content))
    assert onsets(np.concatenate(blocks)) == pytest.approx([1], abs=0.05)


JOINED = [
    ("mp3", "libmp3lame", 48_000),
    ("mp3", "libmp3lame", 22_050),
    ("adts", "aac", 48_000),
    ("adts", "aac", 16_000),
    ("ac3", "ac3", 32_000),
    ("ogg", "libopus", 48_000),
    ("ogg", "flac", 16_000),
    ("flac", "flac", 48_000),
    ("mpegts", "aac", 48_000),
    ("webm", "libopus", 48_000),
]


@pytest.mark.parametrize(("container", "codec", "rate"), JOINED)
@pytest.mark.parametrize("channels", [1, 2])
def test_two_files_joined_are_both_heard(container: str, codec: str, rate: int, channels: int) -> None:
    if (container, codec, channels) == ("ogg", "libopus", 2):
        pytest.skip("FFmpeg cannot go on with other channels here: the next test")
    if (container, channels) == ("flac", 2):
        pytest.skip("FFmpeg stamps the second one a second late")
    first = file_of(container, Track(bursts(3, (1,)), codec=codec))
    other = bursts(3, (1,), rate)
    second = file_of(container, Track(other if channels == 1 else np.stack([other] * 2), rate, codec))
    times, said = heard(first + second)
    assert times == pytest.approx([1, 4], abs=0.1)
    assert len(said) <= 1


# MP3s say it with the frame that a file begins with, the others with a clock that begins anew.
@pytest.mark.parametrize(("container", "codec"), [("mp3", "libmp3lame"), ("ogg", "flac"), ("mpegts", "aac")])
def test_where_files_were_joined_is_known_when_the_sound_behind_it_comes(container: str, codec: str) -> None:
    content = file_of(container, Track(bursts(3, (1,)), codec=codec))
    joints: list[float] = []
    known = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MediaWarning)
        for _ in stream_audio(content * 3, 0.5, joints):
            known.append(len(joints))
    assert joints == pytest.approx([3, 6], abs=0.2)
    assert [known.index(count) * 0.5 for count in (1, 2)] <= [joint + 1 for joint in joints]


@pytest.mark.parametrize(("container", "codec"), [("mp3", "libmp3lame"), ("ogg", "flac"), ("mpegts", "aac")])
def test_a_file_of_one_recording_has_no_joint_even_where_it_is_broken(container: str, codec: str) -> None:
    content = file_of(container, Track(SOUND, codec=codec))
    joints: list[float] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MediaWarning)
        for sound in (content, broken(content, 2, 2.08, fill=b"\xff"), broken(content, 5, 5.08, fill=b"\0")):
            list(stream_audio(sound, joints=joints))
    assert joints == []


def test_what_ffmpeg_cannot_go_on_with_is_an_error_behind_what_it_could() -> None:
    first = file_of("ogg", Track(bursts(3, (1,)), codec="libopus"))
    second = file_of("ogg", Track(np.stack([bursts(3, (1,))] * 2), codec="libopus"))
    blocks: list[Any] = []
    with pytest.raises(InputError, match="is damaged"):
        blocks.extend(stream_audio(first + second))
    assert onsets(np.concatenate(blocks)) == pytest.approx([1], abs=0.05)


LATE = [("mp4", "aac"), ("mov", "pcm_s16le"), ("matroska", "flac"), ("mpegts", "aac"), ("flv", "aac")]


@pytest.mark.parametrize(("container", "codec"), LATE)
def test_a_track_that_begins_late_keeps_the_film_s_clock(container: str, codec: str) -> None:
    content = file_of(container, Track(AT_44100, 44_100, codec, late=5), video_seconds=8)
    times, said = heard(content)
    assert times == pytest.approx([6, 9], abs=0.05)
    assert said == []
    assert audio_duration(content) == pytest.approx(11, abs=0.3)
    # A clip has no clock: it begins with its sound.
    assert onsets(load_audio(content)) == pytest.approx([1, 4], abs=0.05)


@pytest.mark.parametrize("late", [5.0, 3600.0])
@pytest.mark.parametrize("container", ["webm", "ogg", "mpegts"])
def test_a_sound_alone_begins_at_zero_whatever_its_times(container: str, late: float) -> None:
    codec = "aac" if container == "mpegts" else "libopus"
    times, said = heard(file_of(container, Track(SOUND, codec=codec, late=late)))
    assert times == pytest.approx([1, 4], abs=0.05)
    assert said == []


HOLES = [("webm", "libopus"), ("matroska", "aac"), ("mp4", "aac"), ("mpegts", "aac"), ("ogg", "flac"), ("flv", "aac")]


@pytest.mark.parametrize(("container", "codec"), HOLES)
def test_a_hole_in_a_recording_is_silence_of_its_length(container: str, codec: str) -> None:
    rate = 44_100 if container == "flv" else 48_000
    track = Track(
        bursts(6, (1, 4), rate), rate, codec, kept=lambda t: not 2 <= t < 3.5, moved=lambda t: t if t < 3 else t + 20
    )
    content = file_of(container, track)
    times, said = heard(content)
    assert times == pytest.approx([1, 24], abs=0.05)
    assert said == []
    # For a clip a pause is enough, and of the 30 s only what there is counts.
    assert onsets(load_audio(content)) == pytest.approx([1, 3.5], abs=0.1)


def test_a_hole_of_an_hour_takes_no_memory() -> None:
    content = file_of("matroska", Track(SOUND, moved=lambda t: t if t < 3 else t + 3600))
    blocks = [onsets(block) for block in stream_audio(content, 1.0)]
    assert [second for second, times in enumerate(blocks) if times] == [1, 3604]


TONE = bursts(4, (1, 2.5))


@pytest.mark.parametrize("container", ["matroska", "mp4"])
@pytest.mark.parametrize("first", [np.zeros_like(TONE), 1e-4 * TONE])
def test_where_the_first_track_is_silent_the_one_that_speaks_is_taken_and_named(
    container: str, first: np.ndarray
) -> None:
    content = file_of(container, Track(first), Track(first), Track(TONE))
    times, (said,) = heard(content)
    assert times == pytest.approx([1, 2.5], abs=0.05)
    assert "the first of its 3 sound tracks is silent, so number 3 is listened to" in said
    with pytest.warns(MediaWarning, match="number 3"):
        load_audio(content)


def test_where_the_first_track_speaks_it_is_taken_however_loud_the_others_are() -> None:
    quiet = 0.1 * bursts(4, (2,))
    times, said = heard(file_of("matroska", Track(quiet), Track(TONE)))
    assert said == []
    assert times == []  # under the threshold of `onsets`, but no other track
    samples = np.concatenate(list(stream_audio(file_of("matroska", Track(quiet), Track(TONE)))))
    assert onsets(samples, threshold=0.01) == pytest.approx([2], abs=0.05)


def test_a_track_that_speaks_only_after_the_look_ahead_is_found_too() -> None:
    content = file_of(
        "matroska", Track(np.zeros(70 * 8_000, np.float32), 8_000), Track(bursts(70, (65,), 8_000), 8_000)
    )
    times, (said,) = heard(content)
    assert times == pytest.approx([65], abs=0.1)
    assert "number 2" in said


def test_silent_tracks_are_silence_and_no_note() -> None:
    assert heard(file_of("matroska", Track(np.zeros_like(TONE)), Track(np.zeros_like(TONE)))) == ([], [])


@pytest.mark.parametrize(("container", "codec"), [("wav", "pcm_s16le"), ("flac", "flac"), ("ipod", "aac")])
@pytest.mark.parametrize("other", [-1.0, -0.9])
def test_channels_that_are_each_other_s_opposite_do_not_cancel(container: str, codec: str, other: float) -> None:
    noise = 1e-4 * np.random.default_rng(0).standard_normal((2, len(TONE))).astype(np.float32)
    content = file_of(container, Track(np.stack([TONE, other * TONE]) + noise, codec=codec))
    times, said = heard(content)
    assert times == pytest.approx([1, 2.5], abs=0.05)
    assert said == []
    assert np.abs(load_audio(content)).max() > 0.25  # as loud as one of them


def test_opposite_channels_that_differ_by_a_little_noise_are_heard_as_evenly_as_one() -> None:
    draw = np.random.default_rng(0)
    tone = np.sin(np.arange(5 * 16_000) * 0.1) * 0.3
    left, right = (tone + draw.normal(0, 0.003, len(tone)) for _ in range(2))
    mixed = np.concatenate(list(stream_audio((np.stack([left, -right]), 16_000))))
    power = np.square(mixed[1600:]).reshape(-1, 800).mean(axis=1)
    assert power.min() > 0.95 * power.max()


def test_opposite_channels_of_an_array_and_of_six_do_not_cancel() -> None:
    assert onsets(load_audio((np.stack([TONE, -TONE]), 48_000))) == pytest.approx([1, 2.5], abs=0.05)
    surround = np.zeros((6, len(TONE)), np.float32)
    surround[0], surround[1] = TONE, -TONE
    content = file_of("wav", Track(surround, codec="pcm_s16le"))
    assert onsets(load_audio(content), threshold=0.03) == pytest.approx([1, 2.5], abs=0.05)


def test_ordinary_stereo_is_the_mean_of_its_channels_to_the_bit() -> None:
    rng = np.random.default_rng(0)
    time = np.arange(4 * 16_000) / 16_000
    left = (0.3 * np.sin(2 * np.pi * 300 * time) * (time % 1 < 0.5)).astype(np.float32)
    room = 0.01 * rng.standard_normal((2, len(left))).astype(np.float32)
    for right in (left, 0.2 * left, 0 * left, np.roll(left, 8_000), np.roll(left, 9), rng.permutation(left)):
        channels = np.stack([left, right]) + room
        stored = np.round(channels * 32768).clip(-32768, 32767).astype(np.int16)
        expected = (stored / np.float32(32768)).astype(np.float32).T.mean(axis=1).astype(np.float32)
        np.testing.assert_array_equal(load_audio((stored, 16_000)), expected)


ROUNDED_UP = [
    ("ipod", "aac", 48_000),
    ("ipod", "aac", 8_000),
    ("mp4", "aac", 22_050),
    ("mov", "aac", 44_100),
    ("adts", "aac", 48_000),
    ("adts", "aac", 8_000),
    ("ac3", "ac3", 48_000),
    ("ogg", "libopus", 48_000),
    ("mp3", "libmp3lame", 44_100),
    ("matroska", "aac", 48_000),
]


@pytest.mark.parametrize(("container", "codec", "rate"), ROUNDED_UP)
def test_thirty_seconds_that_the_codec_filled_up_are_taken_and_more_is_not(
    container: str, codec: str, rate: int
) -> None:
    samples = load_audio(file_of(container, Track(bursts(30, (1, 29), rate), rate, codec)))
    assert 479_000 < len(samples) <= 480_000
    assert onsets(samples) == pytest.approx([1, 29], abs=0.2)
    with pytest.raises(InputError, match="longer than the 30 s"):
        load_audio(file_of(container, Track(bursts(30.6, (1,), rate), rate, codec)))


@pytest.mark.parametrize(("container", "codec"), [("wav", "pcm_s16le"), ("flac", "flac")])
def test_without_a_codec_that_fills_up_30_s_are_30_s(container: str, codec: str) -> None:
    with pytest.raises(InputError, match="longer than the 30 s"):
        load_audio(file_of(container, Track(np.zeros(16_000 * 30 + 2, np.float32), 16_000, codec)))


def test_a_recording_that_holds_less_than_it_says_was_cut_off() -> None:
    content = file_of("mp3", Track(bursts(20, (1, 4)), codec="libmp3lame"))
    times, (said,) = heard(content[: len(content) // 2])
    assert times == pytest.approx([1, 4], abs=0.1)
    assert "it says that it holds 0:20, but only 0:10 came out of it" in said


def test_a_playlist_does_not_make_anybody_wait() -> None:
    playlist = b"#EXTM3U\n#EXT-X-TARGETDURATION:99999\n#EXTINF:99999,\na.ts\n"
    with pytest.raises(InputError, match="is not a sound file"):
        load_audio(playlist)


@pytest.mark.parametrize(
    ("container", "codec", "rate"),
    [
        ("asf", "libmp3lame", 44_100),
        ("adts", "aac", 44_100),  # .aac
        ("ipod", "alac", 44_100),  # .m4a, lossless
        ("caf", "pcm_s16le", 48_000),
        ("aiff", "pcm_s24be", 44_100),
        ("au", "pcm_mulaw", 8_000),
        ("mpegts", "mp2", 48_000),
        ("mpegts", "ac3", 48_000),
        ("3gp", "aac", 16_000),
        ("avi", "libmp3lame", 44_100),
        ("avi", "adpcm_ima_wav", 22_050),
        ("flv", "libmp3lame", 44_100),
        ("wv", "wavpack", 44_100),
        ("tta", "tta", 44_100),
    ],
)
def test_the_containers_and_codecs_that_people_have_are_read(container: str, codec: str, rate: int) -> None:
    assert onsets(load_audio(file_of(container, Track(bursts(2, (1,), rate), rate, codec)))) == pytest.approx(
        [1], abs=0.15
    )


def test_a_codec_that_is_not_named_is_never_opened() -> None:
    with pytest.raises(InputError, match="has sound that cannot be decoded here: save it as m4a"):
        load_audio(file_of("wav", Track(bursts(2, (1,), 16_000), 16_000, "dfpwm")))


def test_sound_from_a_pipe_is_heard_behind_a_broken_packet_too() -> None:
    from gemma4_mlx.processing.audio import stream_pipe

    class Unseekable(io.BytesIO):
        def seekable(self) -> bool:
            return False

    content = broken(file_of("matroska", Track(SOUND)), 2, 2.1, fill=b"\xff")
    with pytest.warns(MediaWarning, match="standard input is damaged"):
        samples = np.concatenate(list(stream_pipe(Unseekable(content), "standard input")))
    assert onsets(samples) == pytest.approx([1, 4], abs=0.05)


def test_a_video_of_frames_larger_than_any_screen_is_refused_before_one_is_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from gemma4_mlx.processing import video

    content = file_of("mp4", Track(TONE), video_seconds=1)
    assert video.video_size(content) == video.VideoSize(64, 48, 10, 1.0)
    monkeypatch.setattr(video, "FRAME_PIXELS", 64 * 48 - 1)
    for look in (video.load_video, video.video_size):
        with pytest.raises(InputError, match="has frames of 64×48"):
            look(content)


def test_a_broken_video_packet_costs_its_frames_and_no_more() -> None:
    from gemma4_mlx.processing.video import load_video

    stream = io.BytesIO()
    with av.open(stream, "w", format="avi") as file:
        track: Any = file.add_stream("mjpeg", rate=10)
        track.width, track.height, track.pix_fmt = 64, 48, "yuvj420p"
        for number in range(20):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 10 * number, np.uint8), format="rgb24")
            file.mux(track.encode(frame))
        file.mux(track.encode(None))
    content = broken(stream.getvalue(), 0.5, 0.7, fill=b"\0")
    with pytest.warns(MediaWarning, match="0.20 s of video at 0:0"):
        video = load_video(content)
    greys = [float(np.asarray(frame).mean()) for frame in video.frames]
    assert len(greys) >= 18
    assert greys[:5] == pytest.approx([0, 10, 20, 30, 40], abs=3)
    assert greys[-1] == pytest.approx(190, abs=3)
