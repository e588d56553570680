"""Raw frames are read as declared; errors are reported, and a truncated file yields its whole frames."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from pipeline.config.schema import SourceConfig
from pipeline.imaging import image_files
from pipeline.sources.opening import open_source
from pipeline.system.errors import SourceError, SourceLost, UsageError
from tests.support.media import grey_frames, open_files

DECLARED = {"format": "raw", "size": "96x64", "dtype": "uint8"}


def write_raw(path, count=6, header=b""):
    path.write_bytes(header + np.stack(grey_frames(count)).tobytes())
    return path


def test_a_raw_file_knows_its_size_depth_rate_and_count(tmp_path):
    with open_source(write_raw(tmp_path / "a.bin"), **DECLARED, rate=12.5) as source:
        info, frames = source.info, list(source)
    assert (info.width, info.height, info.bit_depth, info.channels, info.frame_count) == (96, 64, 8, 1, 6)
    assert (info.rate, info.live) == (Fraction(25, 2), False)
    np.testing.assert_array_equal([frame.image for frame in frames], grey_frames(6))
    assert [frame.pts for frame in frames] == [Fraction(2 * index, 25) for index in range(6)]


def test_start_and_max_frames_select_raw_frames_after_a_header(tmp_path):
    path = write_raw(tmp_path / "a.bin", header=b"HEADER!")
    with open_source(path, **DECLARED, header=7, start=2, max_frames=3) as source:
        frames = list(source)
        assert source.info.frame_count == 3
    assert [frame.index for frame in frames] == [2, 3, 4]
    np.testing.assert_array_equal([frame.image for frame in frames], grey_frames(6)[2:5])


def test_a_truncated_raw_file_yields_its_whole_frames_and_then_the_loss(tmp_path):
    path = write_raw(tmp_path / "a.bin")
    path.write_bytes(path.read_bytes()[:-100])
    frames = []
    with open_source(path, **DECLARED) as source:
        assert source.info.frame_count == 5
        with pytest.raises(
            SourceLost, match="lost after 5 frames: 6044 bytes are left over; it is cut off, or"
        ):
            frames.extend(source)
    assert len(frames) == 5


def test_a_raw_file_without_a_whole_frame_is_refused_and_closed(tmp_path):
    before = open_files()
    with pytest.raises(
        SourceError, match="too few for frames of 96x64 uint8 behind 6140 bytes, 6144 bytes each"
    ):
        open_source(write_raw(tmp_path / "a.bin", 1), **DECLARED, header=6140)
    with pytest.raises(SourceError, match="has 6 frames, none from index 6 on"):
        open_source(write_raw(tmp_path / "a.bin"), **DECLARED, start=6)
    assert open_files() == before


def test_raw_frames_too_large_are_refused_before_memory_is_allocated(tmp_path, monkeypatch):
    monkeypatch.setattr(image_files, "MAX_PIXELS", 1000)
    with pytest.raises(SourceError, match="frames of 96x64 are refused"):
        open_source(write_raw(tmp_path / "a.bin"), **DECLARED)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "raw"}, "format = raw needs the size and the samples"),
        ({"format": "raw", "size": "96x64"}, "format = raw needs the size and the samples"),
        ({"size": "96"}, "size = '96'"),
        ({"size": "native"}, "expected WxH such as 320x256"),
        ({"bits": 7}, "bits = 7, expected 8 to 16"),
        ({"bits": 17}, "bits = 17, expected 8 to 16"),
        ({"header": -1}, "header = -1"),
        ({"timeout": 0}, "timeout = 0"),
        ({"timeout": float("nan")}, "timeout = nan"),
    ],
    ids=str,
)
def test_invalid_declarations_are_usage_errors(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        SourceConfig(**options)
    with pytest.raises(UsageError, match=message):
        open_source(tmp_path, **options)
