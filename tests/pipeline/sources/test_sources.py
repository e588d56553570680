"""Every kind of source yields the frames that were stored; faults are reported in one line."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from itertools import islice, pairwise

import av
import numpy as np
import pytest
from PIL import Image

from pipeline.config.schema import SourceConfig
from pipeline.sources.opening import open_source
from pipeline.system.errors import SourceError, UsageError
from pipeline.system.prefetch import prefetch
from pipeline.system.redaction import redact
from tests.conftest import PROJECT_ROOT
from tests.support.media import (
    IDENTITY,
    LOSSLESS,
    grey_frames,
    open_files,
    planar_yuv,
    turn,
    write_video,
    write_yuv,
)


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


def test_the_first_frame_determines_grey_or_colour(tmp_path):
    luma = grey_frames(1)[0]
    path = write_yuv(tmp_path / "a.mkv", [planar_yuv(luma), planar_yuv(luma, 30, 220)])
    with open_source(path) as source:
        first, second = source
    np.testing.assert_array_equal(first.image, second.image)


@pytest.mark.parametrize(("color_range", "full"), [(0, False), (1, False), (2, True)])
def test_limited_range_is_stretched_as_ffmpeg_does_and_full_range_is_not(tmp_path, color_range, full):
    luma = np.tile(np.arange(256, dtype=np.uint8), (16, 1))
    path = write_yuv(tmp_path / "a.mkv", [planar_yuv(luma)], color_range)
    with open_source(path) as source:
        image = next(source).image
    reference = planar_yuv(luma)
    reference.color_range = color_range
    np.testing.assert_array_equal(image, reference.to_ndarray(format="gray"))
    assert np.array_equal(image, luma) == full
    assert (image[0, 16], image[0, 235]) == ((16, 235) if full else (0, 255))


def test_nv12_and_planar_clips_decode_equally(tmp_path):
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
        np.testing.assert_array_equal(next(one).image, next(other).image)


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_deep_grey_video_is_lossless(tmp_path, bits):
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
    np.testing.assert_array_equal(first.image, ramp)
    np.testing.assert_array_equal(second.image, ramp[::-1])


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
            np.testing.assert_array_equal(next(source).image, image)


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
def test_frames_are_oriented_as_displayed(tmp_path, matrix, shown):
    path = write_video(tmp_path / "a.mp4", grey_frames(2), **LOSSLESS)
    with open_source(path) as source:
        upright = [frame.image for frame in source]
    with open_source(turn(path, matrix)) as source:
        frames = [frame.image for frame in source]
        assert (source.info.height, source.info.width) == shown(upright[0]).shape
    for image, expected in zip(frames, upright, strict=True):
        np.testing.assert_array_equal(image, shown(expected))


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
def test_start_and_max_frames_select_frames_by_index(tmp_path, suffix):
    path = write_video(tmp_path / f"a.{suffix}", grey_frames(20))
    with open_source(path) as source:
        everything = list(source)
    with open_source(path, start=7, max_frames=5) as source:
        assert source.info.frame_count == (5 if suffix == "mp4" else None)
        chosen = list(source)
    assert [frame.index for frame in chosen] == [7, 8, 9, 10, 11]
    for frame in chosen:
        assert frame.pts == everything[frame.index].pts
        np.testing.assert_array_equal(frame.image, everything[frame.index].image)


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


RATES = [{"rate": rate} for rate in (0, -1, 1e-7, 0.00099, 100_001, float("inf"), float("nan"))]


@pytest.mark.parametrize("options", [{"start": -1}, {"max_frames": -1}, *RATES], ids=str)
def test_impossible_options_are_usage_errors(tmp_path, options):
    with pytest.raises(UsageError, match=next(iter(options))):
        open_source(tmp_path, **options)


@pytest.mark.parametrize("options", RATES, ids=str)
def test_the_configuration_refuses_the_same_rates(options):
    with pytest.raises(ValueError, match=r"rate = .*, expected 0\.001 to 100000 frames per second"):
        SourceConfig(**options)


@pytest.mark.parametrize("rate", [0.001, 100_000])
def test_the_least_and_the_highest_rate_are_kept(tmp_path, rate):
    for index, image in enumerate(grey_frames(3)):
        Image.fromarray(image).save(tmp_path / f"{index}.png")
    with open_source(tmp_path, rate=SourceConfig(rate=rate).rate) as source:
        assert source.info.rate == Fraction(str(rate))
        assert [frame.pts for frame in source] == [index / Fraction(str(rate)) for index in range(3)]


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
        frames.close()  # after the source, which must make no difference
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
def test_credentials_are_removed_from_addresses(address, redacted):
    assert redact(address) == redacted


def test_importing_sources_does_not_import_torch():
    code = "import sys, pipeline.sources.opening, pipeline.system.prefetch; sys.exit('torch' in sys.modules)"
    root = PROJECT_ROOT
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


# Real data


@pytest.mark.real_data
def test_a_real_clip_is_grey_and_complete_with_increasing_times(drone_ir):
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
