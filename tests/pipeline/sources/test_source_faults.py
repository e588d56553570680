"""Faults of files are reported in one line, after the good frames."""

from __future__ import annotations

import re
import struct
import wave
import zlib
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

from pipeline.imaging import image_files
from pipeline.sources.opening import open_source
from pipeline.system.errors import SourceError, SourceLost
from tests.support.media import cut, grey_frames, open_files, read_until_lost, write_video


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


def no_stream(folder):
    with av.open(str(folder / "a.mp4"), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height = 64, 48
        container.start_encoding()
    data = (folder / "a.mp4").read_bytes()
    (folder / "a.mp4").write_bytes(data.replace(b"trak", b"free"))
    return folder / "a.mp4", "holds no video and no other stream"


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
    "fault", [text_as_video, plain_text, empty, sound_only, no_stream, without_index, nothing_but_damage]
)
def test_unreadable_files_are_refused_in_one_line(tmp_path, fault):
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
        ("rtsp://user:secret@127.0.0.1:9/1", "rtsp://127.0.0.1:9/1 cannot be opened: Connection refused"),
        ("97", "camera 97: there is no /dev/video97"),
        ("store.zarr", "store.zarr: no such folder"),
        ("nowhere/*.png", "holds no images"),
    ],
)
def test_locations_that_cannot_be_opened_say_why(location, message):
    with pytest.raises(SourceError, match=message.replace("*", r"\*")):
        open_source(location)


def test_frames_too_large_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(image_files, "MAX_PIXELS", 1000)
    path = write_video(tmp_path / "a.mp4", grey_frames(1))
    with pytest.raises(SourceError, match="frames of 96x64 are refused"):
        open_source(path)


def test_a_video_that_claims_a_huge_size_is_refused_before_memory_is_allocated(tmp_path):
    path = write_video(tmp_path / "a.mkv", grey_frames(2, 256, 400), codec="ffv1", pixel_format="gray")
    data = path.read_bytes()
    claimed = data.replace(b"\xb0\x82\x01\x90", b"\xb0\x82\x2e\xe0").replace(
        b"\xba\x82\x01\x00", b"\xba\x82\x2e\xe0"
    )
    assert claimed != data
    path.write_bytes(claimed)
    with pytest.raises(SourceError, match="frames of 12000x12000 are refused; 1 pixel to 100 megapixels"):
        open_source(path)


def claim_png(path):
    cv2.imwrite(str(path), grey_frames(1)[0])
    data = path.read_bytes()
    head = b"IHDR" + struct.pack(">II", 100_000, 100_000) + data[24:29]
    path.write_bytes(data[:12] + head + struct.pack(">I", zlib.crc32(head)) + data[33:])


def claim_bmp(path):
    cv2.imwrite(str(path), grey_frames(1)[0])
    data = path.read_bytes()
    path.write_bytes(data[:18] + struct.pack("<ii", 100_000, -100_000) + data[26:])


def claim_tiff(path):
    width, height = ((tag, 4, 1, 100_000) for tag in (256, 257))
    fields = b"".join(struct.pack("<HHII", *field) for field in (width, height))
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, 2) + fields + struct.pack("<I", 0))


def claim_jpeg(path):
    cv2.imwrite(str(path), grey_frames(1)[0])
    data = path.read_bytes()
    at = data.index(b"\xff\xc0") + 5
    path.write_bytes(data[:at] + struct.pack(">HH", 65_000, 65_000) + data[at + 4 :])


@pytest.mark.parametrize("claim", [claim_png, claim_bmp, claim_tiff, claim_jpeg])
def test_an_image_that_claims_a_huge_size_is_refused_before_it_is_decoded(tmp_path, monkeypatch, claim):
    path = tmp_path / f"a.{claim.__name__.removeprefix('claim_')}"
    claim(path.with_suffix({".jpeg": ".jpg"}.get(path.suffix, path.suffix)))
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("memory was allocated"))
    with pytest.raises(SourceError, match=r"frames of (100000x100000|65000x65000) are refused"):
        open_source(tmp_path)


def test_an_image_file_too_large_is_not_read(tmp_path, monkeypatch):
    cv2.imwrite(str(tmp_path / "a.png"), grey_frames(1)[0])
    monkeypatch.setattr(image_files, "MAX_FILE_BYTES", 100)
    with pytest.raises(SourceError, match=r"a.png cannot be read: it has \d+ bytes, and at most 100 bytes"):
        open_source(tmp_path)


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
def test_a_truncated_video_yields_its_frames_and_then_the_loss(tmp_path, name, options, message):
    path = write_video(tmp_path / name, grey_frames(30), container_options=options)
    with open_source(path) as source:
        whole = list(source)
    frames, lost = read_until_lost(cut(path))
    assert len(whole) == 30
    assert 18 <= len(frames) <= 22
    assert f"after {len(frames)}" in lost
    assert re.search(message, lost)
    for frame, expected in zip(frames[:18], whole, strict=False):
        np.testing.assert_array_equal(frame.image, expected.image)


def test_truncation_beyond_the_requested_frames_is_no_loss(tmp_path):
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
def test_a_change_of_size_ends_the_source_after_the_frames_before(tmp_path, suffix):
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
