"""Videos: which frames, at which times, turned which way, in which words."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from transformers.models.gemma4.image_processing_pil_gemma4 import Gemma4ImageProcessorPil
from transformers.video_utils import VideoMetadata, default_sample_indices_fn

from gemma4_mlx.errors import InputError
from gemma4_mlx.processing import Processor
from gemma4_mlx.processing.images import patches
from gemma4_mlx.processing.video import clock, load_video, sample_indices
from processing_reference import SPEECH, ids_of, our_processor, reference_processor
from tiny_tokenizer import PROCESSOR_CONFIG, SPECIAL_IDS, write_tokenizer

WIDTH, HEIGHT = 64, 48


def pixels(number: int) -> np.ndarray:
    """A frame that tells its number by its grey, with a red left half to tell a turn by."""
    frame = np.full((HEIGHT, WIDTH, 3), 20 + number % 200, np.uint8)
    frame[:, : WIDTH // 2] = (220, 30, 30)
    return frame


def recorded(frames: int, rate: Fraction | int, container: str, codec: str, **options: str) -> bytes:
    stream = io.BytesIO()
    with av.open(stream, "w", format=container) as file:
        track = file.add_stream(codec, rate=Fraction(rate), options=options)
        track.width, track.height, track.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(frames):
            file.mux(track.encode(av.VideoFrame.from_ndarray(pixels(number), format="rgb24")))
        file.mux(track.encode(None))
    return stream.getvalue()


@pytest.mark.parametrize("total", [32, 33, 63, 64, 100, 1000, 54_321])
def test_frames_are_chosen_as_the_reference_chooses_them(total: int) -> None:
    expected = default_sample_indices_fn(VideoMetadata(total_num_frames=total, fps=30.0), num_frames=32)
    assert sample_indices(total, 32) == expected.tolist()


@pytest.mark.parametrize("total", [0, 1, 5, 31])
def test_a_short_video_is_taken_whole(total: int) -> None:
    assert sample_indices(total, 32) == list(range(total))


RECORDINGS = [
    ("mp4", "libx264", {"g": "12"}),
    ("mov", "libx264", {"g": "30", "x264-params": "open-gop=1"}),
    ("matroska", "libx264", {"g": "250"}),
    ("avi", "mpeg4", {}),
    ("webm", "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}),
    ("mpegts", "libx264", {"g": "30"}),
]


@pytest.mark.parametrize(("container", "codec", "options"), RECORDINGS)
@pytest.mark.parametrize(("total", "rate"), [(7, 25), (40, 24), (300, Fraction(30_000, 1_001))])
def test_the_frames_are_those_of_decoding_it_all_and_their_patches_the_reference_s(
    container: str, codec: str, options: dict[str, str], total: int, rate: Fraction | int
) -> None:
    content = recorded(total, rate, container, codec, **options)
    video = load_video(content)
    with av.open(io.BytesIO(content)) as file:
        everything = [frame.to_image() for frame in file.decode(video=0)]
    assert len(everything) == total
    chosen = [everything[index] for index in sample_indices(total, 32)]
    reference = Gemma4ImageProcessorPil()(chosen, max_soft_tokens=70, return_tensors="np")
    assert len(video.frames) == len(chosen)
    for frame, theirs in zip(video.frames, reference["pixel_values"], strict=True):
        ours = patches(frame)
        np.testing.assert_array_equal(np.array(ours.patches), theirs[: ours.rows * ours.columns])
    metadata = VideoMetadata(total_num_frames=total, fps=float(rate), frames_indices=sample_indices(total, 32))
    np.testing.assert_allclose(video.seconds, metadata.timestamps, rtol=1e-3)


def test_the_prompt_has_the_reference_s_times_and_placeholders() -> None:
    content = recorded(100, 25, "mp4", "libx264")
    chat = [
        {"role": "user", "content": [{"type": "video", "video": content}, {"type": "text", "text": "What happens?"}]}
    ]
    ours = our_processor()(chat)
    metadata = VideoMetadata(total_num_frames=100, fps=25.0, frames_indices=sample_indices(100, 32))
    per_frame = ours.images[0].rows * ours.images[0].columns // 9
    words = reference_processor().replace_video_token(
        {"num_soft_tokens_per_video": [per_frame], "video_metadata": [metadata]}, 0
    )
    prompt = our_processor().render(chat).replace("<|video|>", words)
    assert ids_of(ours) == reference_processor().tokenizer(prompt, add_special_tokens=False).input_ids
    assert per_frame <= 70
    assert ids_of(ours).count(SPECIAL_IDS["<|video|>"]) == 32 * per_frame
    assert "00:03 <|image>" in words


def test_pictures_and_frames_stand_in_the_order_of_the_prompt() -> None:
    still = np.full((96, 48, 3), 255, np.uint8)
    parts = [
        {"type": "image", "image": still},
        {"type": "video", "video": recorded(3, 25, "mp4", "libx264")},
        {"type": "image", "image": still},
    ]
    images = our_processor()([{"role": "user", "content": parts}], image_tokens=140).images
    assert [float(picture.patches.mean()) > 0.99 for picture in images] == [True, False, False, False, True]


def test_times_are_minutes_and_seconds_rounded_down() -> None:
    assert [clock(second) for second in (0, 59.99, 60, 3_599.9, 6_000)] == [
        "00:00",
        "00:59",
        "01:00",
        "59:59",
        "100:00",
    ]


def test_a_phone_held_upright_gives_upright_frames() -> None:
    content = bytearray(recorded(2, 25, "mp4", "libx264"))
    # The matrix of the track header: 40 bytes into the box, here a quarter turn clockwise.
    matrix = content.index(b"tkhd") + 4 + 40
    turned = (0, 1 << 16, 0, -1 << 16, 0, 0, HEIGHT << 16, 0, 1 << 30)
    content[matrix : matrix + 36] = struct.pack(">9i", *turned)
    frame = load_video(bytes(content)).frames[0]
    assert frame.height > frame.width
    shown = np.asarray(frame) / 255
    redness = (shown[..., 0] - shown[..., 2]).mean(axis=1)
    assert redness[:16].mean() > 0.5  # what was left is on top
    assert redness[-16:].mean() < 0.1


def test_frames_of_a_bare_stream_without_times_are_found_by_counting() -> None:
    content = recorded(60, 25, "h264", "libx264")
    with av.open(io.BytesIO(content)) as file:
        everything = [frame.to_image() for frame in file.decode(video=0)]
    chosen = [everything[index] for index in sample_indices(60, 32)]
    reference = Gemma4ImageProcessorPil()(chosen, max_soft_tokens=70, return_tensors="np")
    for frame, theirs in zip(load_video(content).frames, reference["pixel_values"], strict=True):
        ours = patches(frame)
        np.testing.assert_array_equal(np.array(ours.patches), theirs[: ours.rows * ours.columns])


def test_fewer_frames_or_smaller_ones_are_taken_where_the_checkpoint_says_so(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    chosen = {**PROCESSOR_CONFIG, "video_processor": {"num_frames": 4, "max_soft_tokens": 140}}
    (tmp_path / "processor_config.json").write_text(json.dumps(chosen))
    processor = Processor.from_folder(tmp_path, our_processor().config)
    part = {"type": "video", "video": recorded(40, 25, "mp4", "libx264")}
    images = processor([{"role": "user", "content": [part]}]).images
    assert len(images) == 4
    assert 70 < images[0].rows * images[0].columns // 9 <= 140


def refused() -> Iterator[tuple[str, Any, str]]:
    yield "sound", SPEECH, r"speech\.flac has no video in it"
    yield "text", b"Dear Anna, this is a letter.\n" * 9, "not a video file|no video in it"
    yield "empty", b"", "empty"
    yield "missing", "/nowhere/clip.mov", r"clip\.mov does not exist"
    yield "half an mp4", recorded(40, 25, "mp4", "libx264")[:2000], "not a video file"
    yield "asv1", recorded(5, 25, "avi", "asv1"), "has video that cannot be decoded here: save it as mp4"
    yield "an array", np.zeros((4, 48, 64, 3), np.uint8), "give a path"


@pytest.mark.parametrize(("name", "source", "words"), [pytest.param(*case, id=case[0]) for case in refused()])
def test_a_video_that_cannot_be_used_is_refused_in_one_line(name: str, source: Any, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        load_video(source)
    assert "\n" not in str(caught.value)


def test_a_video_of_few_bytes_and_huge_frames_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    path = tmp_path / "wall.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=1)
        stream.width, stream.height, stream.pix_fmt = 7000, 6000, "gray"
        frame = av.VideoFrame.from_ndarray(np.zeros((6000, 7000), np.uint8), "gray")
        container.mux([*stream.encode(frame), *stream.encode()])
    assert path.stat().st_size < 200_000
    with pytest.raises(InputError, match=r"wall\.mkv has .*40 megapixels") as caught:
        load_video(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("codec", ["png", "ffv1"])
def test_frames_that_are_too_large_are_refused_whatever_the_container_tells(codec: str) -> None:
    stream = io.BytesIO()
    with av.open(stream, "w", format="mov" if codec == "png" else "matroska") as container:
        track = container.add_stream(codec, rate=1)
        track.width, track.height, track.pix_fmt = 7000, 6000, "gray"
        frame = av.VideoFrame.from_ndarray(np.zeros((6000, 7000), np.uint8), "gray")
        container.mux([*track.encode(frame), *track.encode()])
    with pytest.raises(InputError, match="40 megapixels"):
        load_video(stream.getvalue())


def test_a_text_file_is_not_shown_as_a_video_of_text(tmp_path: Path) -> None:
    path = tmp_path / "letter.txt"  # FFmpeg plays files of this name as moving text
    path.write_text("Dear Anna, this is a letter.\n" * 40)
    with pytest.raises(InputError, match=r"letter\.txt (has no video|is not a video)"):
        load_video(path)


def test_the_cover_of_a_song_is_not_a_video() -> None:
    stream = io.BytesIO()
    with av.open(stream, "w", format="mp3") as file:
        sound = file.add_stream("libmp3lame", rate=16_000, layout="mono")
        cover = file.add_stream("png", rate=1)
        cover.width, cover.height, cover.pix_fmt = 16, 16, "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic
        file.mux(cover.encode(av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")))
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1152), np.int16), format="s16p", layout="mono")
        frame.sample_rate = 16_000
        file.mux(sound.encode(frame))
        file.mux(sound.encode(None))
    with av.open(io.BytesIO(stream.getvalue())) as file:
        assert file.streams.video
    with pytest.raises(InputError, match="no video in it"):
        load_video(stream.getvalue())
