"""Every kind of source gives the frames that were put in; bad ones explain themselves in one line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import wave
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from pipeline import readers
from pipeline.errors import SourceError, UsageError
from pipeline.prefetch import prefetch
from pipeline.sources import SourceLost, natural_order, open_source, redact

LOSSLESS = {"codec": "libx264", "options": {"qp": "0"}}
IDENTITY = (1, 0, 0, 1)


def grey_frames(count: int, height: int = 64, width: int = 96) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return list(random.integers(0, 256, (count, height, width), np.uint8))


def write_video(
    path: Path,
    images: list[np.ndarray],
    *,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    source_format: str = "gray",
    rate: Fraction | int = 30,
    times: list[int] | None = None,
    time_base: Fraction | None = None,
    options: dict | None = None,
    container_options: dict | None = None,
) -> Path:
    """Encode (H, W) or (H, W, 3) images, shown at `times` in `time_base` or at `rate`."""
    time_base = time_base or 1 / Fraction(rate)
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = pixel_format
        stream.codec_context.time_base = time_base
        for index, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format=source_format)
            frame.pts, frame.time_base = times[index] if times else index, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def planar_yuv(luma: np.ndarray, blue: int = 128, red: int = 128, *, pixel_format: str = "yuv420p"):
    """A frame with the given luma (H, W) uint8 and constant chroma."""
    frame = av.VideoFrame(luma.shape[1], luma.shape[0], pixel_format)
    for plane, values in zip(frame.planes, (luma, blue, red), strict=True):
        rows = np.zeros((plane.height, plane.line_size), np.uint8)
        rows[:, : plane.width] = values
        plane.update(rows.tobytes())
    return frame


def write_yuv(path: Path, frames: list[av.VideoFrame], color_range: int = 1) -> Path:
    """Encode frames without loss and without any conversion."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=30)
        stream.width, stream.height = frames[0].width, frames[0].height
        stream.pix_fmt = frames[0].format.name
        stream.codec_context.color_range = color_range
        for index, frame in enumerate(frames):
            frame.pts, frame.color_range = index, color_range
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def cut(path: Path, share: float = 0.7) -> Path:
    """A copy of the file that ends after a share of its bytes."""
    data = path.read_bytes()
    shorter = path.with_name(f"cut_{path.name}")
    shorter.write_bytes(data[: int(len(data) * share)])
    return shorter


def turn(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Write a display matrix into the track header of an mp4."""

    def coded(a, b, c, d):
        return np.array([a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30], ">i4").tobytes()

    data = path.read_bytes()
    position = data.index(coded(*IDENTITY), data.index(b"tkhd"))
    path.write_bytes(data[:position] + coded(*matrix) + data[position + 36 :])
    return path


def read_until_lost(path: Path) -> tuple[list, str]:
    """The frames before the loss, and what it says."""
    frames = []
    with open_source(path) as source:
        with pytest.raises(SourceLost) as caught:
            frames.extend(source)  # keeps what came before the error
    return frames, str(caught.value)


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


# Videos


def test_a_grey_clip_in_colour_planes_gives_one_channel(tmp_path):
    path = write_video(tmp_path / "a.mp4", grey_frames(5))
    with open_source(path) as source:
        info, frames = source.info, list(source)
    assert (info.width, info.height, info.channels, info.bit_depth, info.frame_count) == (96, 64, 1, 8, 5)
    assert info.name == str(path)
    assert not info.live
    assert [frame.index for frame in frames] == [0, 1, 2, 3, 4]
    assert all(frame.image.shape == (64, 96) and frame.image.dtype == np.uint8 for frame in frames)
    assert {frame.source for frame in frames} == {str(path)}


def test_a_coloured_clip_keeps_its_colours(tmp_path):
    image = np.zeros((64, 96, 3), np.uint8)
    image[:, :48], image[:, 48:] = (200, 40, 30), (20, 60, 210)
    path = write_video(tmp_path / "a.mp4", [image] * 3, source_format="rgb24", options={"crf": "5"})
    with open_source(path) as source:
        assert source.info.channels == 3
        frame = next(source)
    assert np.abs(frame.image[:, 8:40].astype(int) - (200, 40, 30)).max() <= 4
    assert np.abs(frame.image[:, 56:88].astype(int) - (20, 60, 210)).max() <= 4


@pytest.mark.parametrize(
    ("off", "channels"), [(0, 1), (2, 1), (-2, 1), (3, 3), (-3, 3)], ids=lambda value: f"{value}"
)
def test_chroma_is_neutral_up_to_two_levels(tmp_path, off, channels):
    luma = grey_frames(1)[0]
    path = write_yuv(tmp_path / "a.mkv", [planar_yuv(luma, 128 + off, 128)])
    with open_source(path) as source:
        assert source.info.channels == channels
        assert next(source).image.ndim == (2 if channels == 1 else 3)


def test_the_first_frame_decides_for_all(tmp_path):
    luma = grey_frames(1)[0]
    path = write_yuv(tmp_path / "a.mkv", [planar_yuv(luma), planar_yuv(luma, 30, 220)])
    with open_source(path) as source:
        first, second = source
    assert np.array_equal(first.image, second.image)


@pytest.mark.parametrize(("color_range", "full"), [(0, False), (1, False), (2, True)])
def test_limited_range_is_stretched_as_ffmpeg_does_and_full_range_is_not(tmp_path, color_range, full):
    luma = np.tile(np.arange(256, dtype=np.uint8), (16, 1))
    path = write_yuv(tmp_path / "a.mkv", [planar_yuv(luma)], color_range)
    with open_source(path) as source:
        image = next(source).image
    reference = planar_yuv(luma)
    reference.color_range = color_range
    assert np.array_equal(image, reference.to_ndarray(format="gray"))
    assert np.array_equal(image, luma) == full
    assert (image[0, 16], image[0, 235]) == ((16, 235) if full else (0, 255))


def test_nv12_and_planar_clips_decode_alike(tmp_path):
    luma = grey_frames(1)[0]
    planar = write_yuv(tmp_path / "a.mkv", [planar_yuv(luma)])
    interleaved = planar_yuv(luma).reformat(format="nv12")
    interleaved.pts = 0
    with av.open(str(tmp_path / "b.nut"), "w") as container:
        stream = container.add_stream("rawvideo", rate=30)
        stream.height, stream.width = luma.shape
        stream.pix_fmt = "nv12"
        container.mux(stream.encode(interleaved))
        container.mux(stream.encode())
    with open_source(planar) as one, open_source(tmp_path / "b.nut") as other:
        assert other.info.channels == 1
        assert np.array_equal(next(one).image, next(other).image)


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_deep_grey_goes_round_without_a_lost_bit(tmp_path, bits):
    height, width = 256, 1 << (bits - 8)
    ramp = np.arange(1 << bits, dtype=np.uint16).reshape(height, width)
    pixel_format = f"gray{bits}le"
    path = write_video(
        tmp_path / "a.mkv",
        [ramp, ramp[::-1].copy()],
        codec="ffv1",
        pixel_format=pixel_format,
        source_format=pixel_format,
    )
    with open_source(path) as source:
        assert (source.info.bit_depth, source.info.channels) == (bits, 1)
        first, second = source
    assert first.image.dtype == np.uint16
    assert first.bit_depth == bits
    assert np.array_equal(first.image, ramp)
    assert np.array_equal(second.image, ramp[::-1])


def test_ten_bit_luma_keeps_its_levels(tmp_path):
    ramp = np.tile(np.arange(64, 940, dtype=np.uint16), (16, 1))
    frame = av.VideoFrame(ramp.shape[1], 16, "yuv420p10le")
    for plane, values in zip(frame.planes, (ramp, 512, 512), strict=True):
        rows = np.zeros((plane.height, plane.line_size // 2), np.uint16)
        rows[:, : plane.width] = values
        plane.update(rows.tobytes())
    with open_source(write_yuv(tmp_path / "a.mkv", [frame])) as source:
        image = next(source).image
        assert (source.info.bit_depth, source.info.channels) == (10, 1)
    assert len(np.unique(image)) == 940 - 64
    assert (image.min(), image.max()) == (0, 1022)


@pytest.mark.parametrize(("height", "width"), [(255, 320), (256, 321), (33, 35)])
def test_odd_sizes_are_exact(tmp_path, height, width):
    image = grey_frames(1, height, width)[0]
    lossless = write_video(tmp_path / "a.mkv", [image], codec="ffv1", pixel_format="gray")
    planes = write_yuv(tmp_path / "b.mkv", [planar_yuv(image)], color_range=2)
    for path in (lossless, planes):
        with open_source(path) as source:
            assert (source.info.height, source.info.width) == (height, width)
            assert np.array_equal(next(source).image, image)


def test_odd_sizes_in_colour_have_the_right_shape(tmp_path):
    image = grey_frames(1, 33, 35)[0]
    with open_source(write_yuv(tmp_path / "a.mkv", [planar_yuv(image, 40, 200)])) as source:
        assert next(source).image.shape == (33, 35, 3)


@pytest.mark.parametrize(
    ("matrix", "shown"),
    [
        (IDENTITY, lambda image: image),
        ((0, 1, -1, 0), lambda image: np.rot90(image, -1)),
        ((-1, 0, 0, -1), lambda image: np.rot90(image, 2)),
        ((0, -1, 1, 0), lambda image: np.rot90(image)),
        ((-1, 0, 0, 1), np.fliplr),
        ((1, 0, 0, -1), np.flipud),
        ((0, 1, 1, 0), np.transpose),
    ],
    ids=["upright", "clockwise", "half turn", "counterclockwise", "mirrored", "upside down", "transposed"],
)
def test_frames_are_turned_as_displayed(tmp_path, matrix, shown):
    path = write_video(tmp_path / "a.mp4", grey_frames(2), **LOSSLESS)
    with open_source(path) as source:
        upright = [frame.image for frame in source]
    with open_source(turn(path, matrix)) as source:
        frames = [frame.image for frame in source]
        assert (source.info.height, source.info.width) == shown(upright[0]).shape
    for image, expected in zip(frames, upright, strict=True):
        assert np.array_equal(image, shown(expected))


def test_the_rate_stays_rational_and_times_exact(tmp_path):
    rate = Fraction(30000, 1001)
    with open_source(write_video(tmp_path / "a.mp4", grey_frames(10), rate=rate)) as source:
        assert source.info.rate == rate
        assert [frame.pts for frame in source] == [index / rate for index in range(10)]


def test_irregular_times_are_kept(tmp_path):
    times = [0, 33, 70, 500, 510, 1999]
    path = write_video(tmp_path / "a.mkv", grey_frames(6), times=times, time_base=Fraction(1, 1000))
    with open_source(path) as source:
        assert [frame.pts for frame in source] == [Fraction(time, 1000) for time in times]
        assert source.derived_times == 0


@pytest.mark.parametrize("suffix", ["h264", "avi"])
def test_containers_without_presentation_times_get_them_from_the_rate(tmp_path, suffix):
    path = write_video(tmp_path / f"a.{suffix}", grey_frames(12), rate=25)
    with open_source(path) as source:
        assert [frame.pts for frame in source] == [Fraction(index, 25) for index in range(12)]
        assert source.derived_times == 12


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_start_and_max_frames_choose_frames_by_index(tmp_path, suffix):
    path = write_video(tmp_path / f"a.{suffix}", grey_frames(20))
    with open_source(path) as source:
        everything = list(source)
    with open_source(path, start=7, max_frames=5) as source:
        assert source.info.frame_count == (5 if suffix == "mp4" else None)
        chosen = list(source)
    assert [frame.index for frame in chosen] == [7, 8, 9, 10, 11]
    for frame in chosen:
        assert frame.pts == everything[frame.index].pts
        assert np.array_equal(frame.image, everything[frame.index].image)


def test_max_frames_beyond_the_end_means_all(tmp_path):
    path = write_video(tmp_path / "a.mp4", grey_frames(6))
    with open_source(path, start=2, max_frames=100) as source:
        assert source.info.frame_count == 4
        assert len(list(source)) == 4


def test_a_start_beyond_the_end_is_an_error(tmp_path):
    with pytest.raises(SourceError, match="has 6 frames, none from index 6 on"):
        open_source(write_video(tmp_path / "a.mp4", grey_frames(6)), start=6)
    with open_source(write_video(tmp_path / "a.mkv", grey_frames(6)), start=6) as source:
        with pytest.raises(SourceError, match="has 6 frames, none from index 6 on"):
            list(source)


@pytest.mark.parametrize("options", [{"start": -1}, {"max_frames": 0}, {"rate": 0}], ids=str)
def test_impossible_options_are_usage_errors(tmp_path, options):
    with pytest.raises(UsageError, match=next(iter(options))):
        open_source(tmp_path, **options)


# Faults of videos


def text_as_video(folder):
    (folder / "a.mp4").write_text("This is not a video.\n" * 100)
    return folder / "a.mp4", "cannot be opened as video: Invalid data"


def plain_text(folder):
    (folder / "a.txt").write_text("This is not a video.\n" * 100)
    return folder / "a.txt", "is a text, not a video"


def empty(folder):
    (folder / "a.mp4").touch()
    return folder / "a.mp4", "is empty"


def sound_only(folder):
    with wave.open(str(folder / "a.wav"), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(16000))
    return folder / "a.wav", "holds no video, only audio"


def without_index(folder):
    return cut(write_video(folder / "a.mp4", grey_frames(20))), "was its recording finished"


def nothing_but_damage(folder):
    path = write_video(folder / "a.mp4", grey_frames(1), container_options={"movflags": "faststart"})
    data = bytearray(path.read_bytes())
    begin = data.index(b"mdat") + 8
    data[begin:] = bytes(len(data) - begin)
    path.write_bytes(data)
    return path, "no frame can be decoded"


@pytest.mark.parametrize(
    "fault", [text_as_video, plain_text, empty, sound_only, without_index, nothing_but_damage]
)
def test_what_cannot_be_read_is_refused_in_one_line(tmp_path, fault):
    path, message = fault(tmp_path)
    before = open_files()
    with pytest.raises(SourceError, match=message) as caught:
        open_source(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    assert not isinstance(caught.value, SourceLost)
    assert open_files() == before


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("nowhere.mp4", "nowhere.mp4: no such file or folder"),
        ("/dev/null", "not a regular file"),
        ("rtsp://user:secret@camera/1", "rtsp://camera/1 is a live address, which is not supported"),
        ("0", "0 is a camera, which is not supported; give a folder of images, an image, a video file"),
        ("-", "standard input, which is not supported"),
        ("store.zarr", "a zarr store, which is not supported"),
        ("nowhere/*.png", "holds no images"),
    ],
)
def test_locations_that_cannot_be_opened_say_why(location, message):
    with pytest.raises(SourceError, match=message.replace("*", r"\*")):
        open_source(location)


def test_frames_too_large_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "MAX_PIXELS", 1000)
    path = write_video(tmp_path / "a.mp4", grey_frames(1))
    with pytest.raises(SourceError, match="frames of 96x64 are refused"):
        open_source(path)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("a.mp4", {"movflags": "faststart"}, r"lost after \d+ of 30 frames: the file is cut off"),
        ("a.mp4", {"movflags": "frag_keyframe+empty_moov"}, r"lost after \d+ frames: the file is cut off"),
        ("a.mkv", {}, r"lost after \d+ frames: the file is cut off"),
        ("a.ts", {}, r"lost after \d+ frames: the file is cut off"),
        ("a.avi", {}, r"lost after \d+ of 30 frames: the file is cut off"),
    ],
    ids=["mp4", "fragmented mp4", "mkv", "ts", "avi"],
)
def test_a_cut_video_gives_all_its_frames_and_then_the_loss(tmp_path, name, options, message):
    path = write_video(tmp_path / name, grey_frames(30), container_options=options)
    with open_source(path) as source:
        whole = list(source)
    frames, lost = read_until_lost(cut(path))
    assert len(whole) == 30
    assert 18 <= len(frames) <= 22
    assert f"after {len(frames)}" in lost
    assert re.search(message, lost)
    for frame, expected in zip(frames[:18], whole, strict=False):
        assert np.array_equal(frame.image, expected.image)


def test_a_cut_video_is_fine_when_fewer_frames_are_wanted(tmp_path):
    path = write_video(tmp_path / "a.mp4", grey_frames(30), container_options={"movflags": "faststart"})
    with open_source(cut(path), max_frames=5) as source:
        assert len(list(source)) == 5


def test_damage_in_the_middle_is_skipped_and_counted(tmp_path):
    path = write_video(tmp_path / "a.mp4", grey_frames(20), options={"g": "1", "bf": "0"})
    with av.open(str(path)) as container:
        entries = list(container.streams.video[0].index_entries)
    data = bytearray(path.read_bytes())
    for number in (5, 18):
        begin, size = entries[number].pos, entries[number].size
        data[begin + 4 : begin + size] = b"\xff" * (size - 4)
    path.write_bytes(data)
    with open_source(path) as source:
        frames = list(source)
        assert source.corrupt == 2
    assert [frame.index for frame in frames] == [index for index in range(20) if index not in (5, 18)]
    assert all(frame.pts == Fraction(frame.index, 30) for frame in frames)


@pytest.mark.parametrize("suffix", ["ts", "h264"])
def test_a_change_of_size_ends_the_source_and_keeps_what_was_before(tmp_path, suffix):
    small = write_video(tmp_path / f"small.{suffix}", grey_frames(6))
    large = write_video(tmp_path / f"large.{suffix}", grey_frames(6, 128, 160))
    both = tmp_path / f"both.{suffix}"
    both.write_bytes(small.read_bytes() + large.read_bytes())
    frames, lost = read_until_lost(both)
    assert len(frames) == 6
    assert "frame size changes from 96x64 to 160x128 at frame 6" in lost


def test_an_edit_list_that_hides_frames_is_no_loss(tmp_path):
    path = write_video(tmp_path / "a.mp4", grey_frames(30), options={"bf": "0"})
    data = bytearray(path.read_bytes())
    fields = data.index(b"elst") + 12  # duration in ms, first time shown in units of 1/15360 s
    data[fields : fields + 8] = np.array([333, 512 * 10], ">i4").tobytes()
    path.write_bytes(data)
    with open_source(path) as source:
        frames = list(source)
        assert source.info.frame_count == len(frames) == 10
    assert [frame.index for frame in frames] == list(range(10))


# Images


def write_images(folder: Path, images: dict[str, np.ndarray]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, image in images.items():
        assert cv2.imwrite(str(folder / name), image)
    return folder


@pytest.mark.parametrize("suffix", ["png", "tif", "tiff", "bmp"])
def test_a_folder_is_one_sequence_in_natural_order(tmp_path, suffix):
    images = grey_frames(12)
    named = {f"{index}.{suffix}": image for index, image in enumerate(images)}
    folder = write_images(tmp_path / "images", named)
    (folder / "notes.txt").write_text("no image")
    (folder / f"._0.{suffix}").write_bytes(b"left by a file system")
    for location in (folder, folder / f"*.{suffix}"):
        with open_source(location, rate=Fraction(25, 2)) as source:
            info, frames = source.info, list(source)
        assert (info.frame_count, info.rate, info.bit_depth, info.channels) == (12, Fraction(25, 2), 8, 1)
        assert [frame.index for frame in frames] == list(range(12))
        assert [frame.pts for frame in frames] == [Fraction(2 * index, 25) for index in range(12)]
        assert all(np.array_equal(frame.image, image) for frame, image in zip(frames, images, strict=True))


def test_jpeg_images_are_read_at_thirty_a_second(tmp_path):
    folder = write_images(tmp_path / "images", {"a.jpg": grey_frames(1)[0], "b.JPG": grey_frames(1)[0]})
    with open_source(folder) as source:
        assert [frame.pts for frame in source] == [0, Fraction(1, 30)]
        assert source.info.channels == 1


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_images_keep_every_bit(tmp_path, suffix):
    ramp = np.arange(1 << 16, dtype=np.uint16).reshape(256, 256)
    with open_source(write_images(tmp_path / "images", {f"a.{suffix}": ramp})) as source:
        frame = next(source)
        assert (source.info.bit_depth, frame.bit_depth) == (16, 16)
    assert np.array_equal(frame.image, ramp)


def test_grey_images_stored_as_colour_give_one_channel_and_colour_comes_as_rgb(tmp_path):
    grey = grey_frames(1)[0]
    colour = np.zeros((64, 96, 3), np.uint8)
    colour[...] = (30, 60, 200)  # B, G, R as OpenCV writes it
    stored = write_images(tmp_path / "grey", {"a.png": np.dstack([grey] * 3), "b.png": np.dstack([grey] * 4)})
    with open_source(stored) as source:
        assert all(np.array_equal(frame.image, grey) for frame in source)
    with open_source(write_images(tmp_path / "colour", {"a.png": colour, "b.png": grey})) as source:
        first, second = source
    assert first.image[0, 0].tolist() == [200, 60, 30]
    assert np.array_equal(second.image, np.dstack([grey] * 3))


def test_a_single_image_is_a_source_of_one_frame(tmp_path):
    folder = write_images(tmp_path, {"a.png": grey_frames(1)[0]})
    with open_source(folder / "a.png") as source:
        assert source.info.frame_count == len(list(source)) == 1


def test_start_and_max_frames_choose_images(tmp_path):
    images = {f"{index}.png": image for index, image in enumerate(grey_frames(8))}
    with open_source(write_images(tmp_path / "images", images), start=5, max_frames=2) as source:
        assert source.info.frame_count == 2
        assert [(frame.index, frame.pts) for frame in source] == [(5, Fraction(5, 30)), (6, Fraction(6, 30))]


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(SourceError, match=r"holds no images \(\.png"):
        open_source(tmp_path)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (None, "lost at frame 2: .*2.png cannot be decoded"),
        (np.zeros((32, 32), np.uint8), "changes from 96x64 at 8 bits to 32x32 at 8 bits at frame 2"),
        (np.zeros((64, 96), np.uint16), "changes from 96x64 at 8 bits to 96x64 at 16 bits at frame 2"),
    ],
    ids=["damaged", "other size", "other depth"],
)
def test_a_bad_image_ends_the_sequence_and_keeps_what_was_before(tmp_path, image, message):
    folder = write_images(tmp_path / "images", {f"{i}.png": grey for i, grey in enumerate(grey_frames(4))})
    if image is None:
        data = (folder / "2.png").read_bytes()
        (folder / "2.png").write_bytes(data[: len(data) // 2])
    else:
        write_images(folder, {"2.png": image})
    frames, lost = read_until_lost(folder)
    assert [frame.index for frame in frames] == [0, 1]
    assert re.search(message, lost)


def test_float_images_are_refused(tmp_path):
    folder = write_images(tmp_path / "images", {"a.tiff": np.zeros((8, 8), np.float32)})
    with pytest.raises(SourceError, match="float32 pixels; only 8 and 16 bit"):
        open_source(folder)


def test_natural_order_reads_numbers_as_numbers():
    names = ["b2.png", "a10.png", "a2.png", "A1.png", "a02.png", "7.png"]
    ordered = sorted((Path(name) for name in names), key=natural_order)
    assert [path.name for path in ordered] == ["7.png", "A1.png", "a02.png", "a2.png", "a10.png", "b2.png"]


# Life of a source


def test_leaving_early_closes_the_files(tmp_path):
    path = write_video(tmp_path / "a.mp4", grey_frames(20))
    before = open_files()
    for _ in range(20):
        with open_source(path) as source:
            for _ in islice(source, 3):
                pass
            assert open_files() > before
        assert list(source) == []
    assert open_files() == before


def test_a_source_that_was_never_read_closes_its_files(tmp_path):
    before = open_files()
    open_source(write_video(tmp_path / "a.mp4", grey_frames(2))).close()
    assert open_files() == before


def test_prefetched_frames_are_the_same_and_leaving_early_closes_the_files(tmp_path):
    path = write_video(tmp_path / "a.mp4", grey_frames(30))
    with open_source(path) as source:
        direct = [frame.image for frame in source]
    before = open_files()
    with open_source(path) as source:
        ahead = [frame.image for frame in prefetch(source, size=4)]
    assert all(np.array_equal(one, other) for one, other in zip(direct, ahead, strict=True))
    for _ in range(10):
        with open_source(path) as source:
            frames = prefetch(source, size=4)
            next(frames)
        frames.close()  # later than the source: it must not matter
    assert open_files() == before


def test_decoding_twice_gives_the_same_frames(tmp_path):
    path = write_video(tmp_path / "a.mp4", grey_frames(30))
    with open_source(path) as one, open_source(path) as other:
        assert all(np.array_equal(a.image, b.image) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(
    ("address", "redacted"),
    [
        ("rtsp://user:secret@camera:554/1", "rtsp://camera:554/1"),
        ("rtsp://user@camera/1", "rtsp://camera/1"),
        ("rtsp://user:p@ss/w:rd@camera/1", "rtsp://camera/1"),
        ("https://host/path", "https://host/path"),
        ("https://host/a@b.mp4", "https://host/a@b.mp4"),
        ("folder/a@b.mp4", "folder/a@b.mp4"),
    ],
)
def test_addresses_lose_their_credentials(address, redacted):
    assert redact(address) == redacted


def test_importing_sources_does_not_import_torch():
    code = "import sys, pipeline.sources, pipeline.prefetch; sys.exit('torch' in sys.modules)"
    root = Path(readers.__file__).parent.parent
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


# Real data


@pytest.mark.real_data
def test_a_real_clip_is_grey_complete_and_on_time(drone_ir):
    with open_source(drone_ir / "videos" / "IR_DRONE_001.mp4") as source:
        frames = list(source)
        info = source.info
        assert (source.corrupt, source.derived_times) == (0, 0)
    assert (info.width, info.height, info.channels, info.bit_depth) == (320, 256, 1, 8)
    assert (info.rate, info.frame_count, len(frames)) == (30, 301, 301)
    assert all(one.pts < other.pts for one, other in pairwise(frames))
    assert frames[0].image.shape == (256, 320)


@pytest.mark.real_data
def test_real_clips_are_read_to_their_end(drone_ir):
    paths = sorted((drone_ir / "videos").glob("*.mp4"))[::40]
    for path in paths:
        with open_source(path) as source:
            assert sum(1 for _ in source) == source.info.frame_count
