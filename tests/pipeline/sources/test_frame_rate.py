"""Bare streams have the frame rate that their codec states."""

from __future__ import annotations

from fractions import Fraction

import pytest

from pipeline.sources.opening import open_source
from tests.support.media import LOSSLESS, grey_frames, write_video


@pytest.mark.real_data
def test_bare_h264_of_thirty_frames_per_second_lasts_two_seconds(shared_root):
    with open_source(shared_root / "cases/raw_30fps.h264") as source:
        frames = list(source)
        assert source.info.rate == 30
    assert [frame.pts for frame in frames] == [Fraction(n, 30) for n in range(60)]


@pytest.mark.parametrize("rate", [Fraction(30000, 1001), Fraction(9), Fraction(60)])
@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_the_rate_of_a_bare_stream_is_that_of_its_codec(tmp_path, codec, rate):
    path = tmp_path / ("a.h264" if codec == "libx264" else "a.hevc")
    options = {**LOSSLESS, "codec": codec} if codec == "libx264" else {"codec": codec}
    write_video(path, grey_frames(4), rate=rate, **options)
    with open_source(path) as source:
        assert source.info.rate == rate
        assert [frame.pts for frame in source] == [n / rate for n in range(4)]


def test_motion_jpeg_states_no_rate_and_keeps_that_of_ffmpeg(tmp_path):
    path = write_video(tmp_path / "a.mjpeg", grey_frames(3), codec="mjpeg", pixel_format="yuvj420p", rate=9)
    with open_source(path) as source:
        assert source.info.rate == 25
