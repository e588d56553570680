"""Videos of several streams, of an unknown codec, and patterns of other programs."""

from __future__ import annotations

import av
import numpy as np
import pytest

from pipeline.sources import video
from pipeline.sources.opening import open_source
from pipeline.system.errors import SourceError, UsageError
from tests.support.media import grey_frames, write_video

SIZES = ((64, 48), (32, 16))


@pytest.fixture
def two_streams(tmp_path, monkeypatch):
    """A video with a stream of each of the `SIZES`, whose levels are 10 and 200."""
    monkeypatch.setattr(video, "_remarked", set())
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as container:
        streams = []
        for (width, height), title in zip(SIZES, ("visible", "thermal"), strict=True):
            stream = container.add_stream("ffv1", rate=30)
            stream.width, stream.height, stream.pix_fmt = width, height, "gray"
            stream.metadata["title"] = title
            streams.append(stream)
        for index in range(3):
            for stream, level in zip(streams, (10, 200), strict=True):
                image = np.full((stream.height, stream.width), level, np.uint8)
                frame = av.VideoFrame.from_ndarray(image, format="gray")
                frame.pts = index
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode())
    return path


@pytest.mark.parametrize(("number", "stream"), [(0, 0), (1, 0), (2, 1)])
def test_the_stream_that_is_chosen_is_read(two_streams, number, stream):
    with open_source(two_streams, stream=number) as source:
        frames = list(source)
    assert (source.info.width, source.info.height) == SIZES[stream]
    assert [int(frame.image.mean()) for frame in frames] == [(10, 200)[stream]] * 3


def test_one_remark_names_the_streams_if_none_is_chosen(two_streams, caplog):
    for _ in range(2):  # as a source that is opened again
        open_source(two_streams).close()
    (remark,) = caplog.messages
    assert "two.mkv has 2 video streams: 1 (ffv1 64x48, visible), 2 (ffv1 32x16, thermal)" in remark
    assert "the first is read, --source-stream N chooses another" in remark


def test_a_chosen_stream_needs_no_remark(two_streams, caplog):
    open_source(two_streams, stream=1).close()
    assert caplog.messages == []


def test_a_stream_that_is_not_there_is_a_usage_error(two_streams):
    with pytest.raises(UsageError, match=r"--source-stream 3: .*two\.mkv has 2 video streams: 1 \(ffv1"):
        open_source(two_streams, stream=3)


@pytest.mark.parametrize(
    ("suffix", "codec", "tag"), [("avi", "ffv1", b"FFV1"), ("mov", "libx264", b"avc1")], ids=["avi", "mov"]
)
def test_a_codec_without_a_decoder_is_named_by_its_tag(tmp_path, suffix, codec, tag):
    path = write_video(tmp_path / f"a.{suffix}", grey_frames(2), codec=codec)
    path.write_bytes(path.read_bytes().replace(tag, b"Y16 "))
    with pytest.raises(
        SourceError, match=r"no decoder for its video, codec tag 'Y16' \(0x20363159\); convert"
    ):
        open_source(path)


@pytest.mark.parametrize(
    ("pattern", "glob"), [("frame_%03d.png", "frame_*.png"), ("%d.tif", "*.tif"), ("f_####.png", "f_*.png")]
)
def test_the_pattern_of_another_program_is_answered_with_ours(pattern, glob):
    with pytest.raises(SourceError) as caught:
        open_source(pattern)
    assert str(caught.value).endswith(f"no such file or folder; for numbered images give '{glob}'")
