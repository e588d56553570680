"""Clips of events: copied byte for byte where browsers play the source, else encoded."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest

from pipeline.events.evidence import frame_ring
from pipeline.events.evidence.remuxing import copy_range
from pipeline.sources.opening import open_source
from pipeline.sources.packets.coded import CodedFile
from pipeline.sources.packets.ring import PacketRing
from pipeline.structures.frame import Frame
from tests.support import stream_servers
from tests.support.evidence import (
    ID,
    RATE,
    account,
    coding,
    images,
    keep,
    make_keeper,
    message,
    packets,
    place,
    play,
    result,
    target_of,
    units,
    write_clip,
)
from tests.support.media import turn, write_video

FAST = {"preset": "ultrafast"}

# Copied from a file


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".flv"])
def test_a_clip_of_a_file_has_its_roll_and_the_packets_of_the_source(tmp_path, suffix):
    clip = write_clip(tmp_path / f"source{suffix}")
    with open_source(clip) as source:
        folder = keep(tmp_path, source, 50, 60, pre_roll=1.2, post_roll=0.8)
    found, shown = account(folder)["clip"], play(folder / "clip.mp4")
    offset = 0.1 if suffix in (".ts", ".flv") else 0.0  # of their first presentation time
    # the pre-roll begins at frame 26, and the key frame before that is frame 20
    assert found["copied"]
    assert found["begin"] == pytest.approx(20 / RATE + offset, abs=2e-3)
    assert 76 / RATE - 1e-3 <= found["end"] - offset <= 79 / RATE
    assert shown.times[0] == 0
    assert len(shown.times) == found["frames"]
    np.testing.assert_allclose(np.diff(shown.times), 1 / RATE, atol=2e-3)
    lengths = suffix != ".ts"
    copied = [units(packet, lengths=True) for packet in packets(folder / "clip.mp4")]
    original = [units(packet, lengths=lengths) for packet in packets(clip)]
    assert copied == original[20 : 20 + len(copied)]


def test_a_clip_in_mp4_has_equal_bytes_and_shows_the_target_where_it_was(tmp_path):
    clip = write_clip(tmp_path / "source.mp4")
    with open_source(clip) as source:
        folder = keep(tmp_path, source, 50, 60, pre_roll=1.0, post_roll=0.5)
    copied = packets(folder / "clip.mp4")
    assert copied == packets(clip)[20 : 20 + len(copied)]
    shown = play(folder / "clip.mp4")
    seen = [target_of(picture) for picture in shown.pictures]
    assert seen == [place(20 + index) for index in range(len(seen))]


def test_a_clip_begins_where_the_file_does_if_the_pre_roll_is_longer(tmp_path):
    with open_source(write_clip(tmp_path / "source.mp4")) as source:
        folder = keep(tmp_path, source, 10, 99, pre_roll=5.0, post_roll=5.0)
    assert account(folder)["clip"] == {"begin": 0.0, "end": 4.95, "frames": 100, "copied": True, "lost": 0}


def test_the_index_of_a_clip_comes_first(tmp_path):
    with open_source(write_clip(tmp_path / "source.mp4")) as source:
        folder = keep(tmp_path, source, 50, 60)
    data = (folder / "clip.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_a_clip_names_event_track_rule_source_and_time(tmp_path):
    with open_source(write_clip(tmp_path / "source.mp4")) as source:
        folder = keep(tmp_path, source, 50, 60)
    metadata = play(folder / "clip.mp4").metadata
    assert metadata["title"] == f"event {ID}"
    said = f"event {ID}: rule gate, track 7 (target), source camera, 2026-11-30T21:58:00.000Z"
    assert metadata["comment"] == said


def test_a_turned_video_stays_turned(tmp_path):
    clip = write_video(tmp_path / "source.mp4", images(60), rate=RATE, options=coding(20))
    with open_source(turn(clip, (0, 1, -1, 0))) as source:
        folder = keep(tmp_path, source, 20, 40)
        size = source.info.width, source.info.height
    assert account(folder)["clip"]["copied"]
    with open_source(folder / "clip.mp4") as copied:
        assert (copied.info.width, copied.info.height) == size == (80, 128)


def test_a_far_key_frame_is_not_taken(tmp_path):
    clip = write_video(tmp_path / "source.mp4", images(100), rate=RATE, options=coding(60))
    coded = CodedFile(clip, 0)
    written = copy_range(coded, tmp_path / "near.mp4", (2.0, 4.0), {}, longest=3.0)
    assert written.begin == 0.0
    written = copy_range(coded, tmp_path / "later.mp4", (2.0, 4.0), {}, longest=1.0)
    assert written.begin == 3.0
    with pytest.raises(ValueError, match=r"no key frame from 1\.0 to 2\.5 s"):
        copy_range(coded, tmp_path / "none.mp4", (2.0, 2.5), {}, longest=1.0)


def test_a_long_event_has_a_clip_of_bounded_length(tmp_path):
    with open_source(write_clip(tmp_path / "source.mp4")) as source:
        folder = keep(tmp_path, source, 20, 95, pre_roll=0.5, post_roll=1, max_clip=2.0)
    clip = account(folder)["clip"]
    # from 0.5 s, or the key frame before, to 2.5 s; the pictures between packets of that time belong to it
    assert (clip["begin"], account(folder)["frame"]) == (0.0, 95)
    assert 2.5 <= clip["end"] <= 2.65


# Encoded


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("source.mkv", {"codec": "ffv1", "pixel_format": "gray"}),
        ("source.avi", {"codec": "mjpeg", "pixel_format": "yuvj420p"}),
        ("source.mp4", {"codec": "mpeg4"}),
        ("source.mkv", {"codec": "libx265", "options": {**FAST, "x265-params": "log-level=error"}}),
        ("source.mkv", {"options": {**FAST, "qp": "0"}}),  # lossless H.264, which not all browsers play
        ("source.avi", {"options": coding(20)}),  # H.264 without presentation times
    ],
    ids=["ffv1", "mjpeg", "mpeg4", "hevc", "lossless", "without times"],
)
def test_what_browsers_do_not_play_is_encoded_as_h264(tmp_path, name, settings):
    with open_source(write_video(tmp_path / name, images(80), rate=RATE, **settings)) as source:
        folder = keep(tmp_path, source, 40, 60, pre_roll=1.0, post_roll=0.5)
    shown = play(folder / "clip.mp4")
    assert (shown.codec, shown.pixel_format) == ("h264", "yuv420p")
    assert account(folder)["clip"] == {"begin": 1.0, "end": 3.5, "frames": 51, "copied": False, "lost": 0}
    np.testing.assert_allclose(shown.times, np.arange(51) / RATE, atol=1e-6)
    assert shown.metadata["title"] == f"event {ID}"
    x, y = place(30)
    found = target_of(shown.pictures[10])
    assert abs(found[0] - x) <= 1
    assert abs(found[1] - y) <= 1


def test_frames_of_16_bits_are_tone_mapped(tmp_path):
    deep = np.stack(images(60, dtype=np.uint16, full=4000)).astype("<u2")
    (tmp_path / "source.raw").write_bytes(deep.tobytes())
    given = {"format": "raw", "size": "128x80", "dtype": "uint16le", "rate": 20.0}
    with open_source(tmp_path / "source.raw", **given) as source:
        folder = keep(tmp_path, source, 30, 40, pre_roll=1.0, post_roll=0.5)
    shown = play(folder / "clip.mp4")
    assert len(shown.pictures) == 41
    for number in (0, 20, 40):
        assert target_of(shown.pictures[number]) == place(10 + number)
    assert max(picture.max() for picture in shown.pictures) > 200


def test_the_clip_of_a_file_waits_for_its_encoder_if_memory_is_short(tmp_path):
    clip = write_video(tmp_path / "source.mkv", images(100), rate=RATE, codec="ffv1", pixel_format="gray")
    with open_source(clip) as source:  # memory for three frames
        folder = keep(tmp_path, source, 20, 90, pre_roll=1.0, post_roll=0.2, clip_memory="31kB")
    assert account(folder)["clip"] == {"begin": 0.9, "end": 4.7, "frames": 77, "copied": False, "lost": 0}


def frame(index: int) -> Frame:
    return Frame(np.zeros((10, 10), np.uint8), index, Fraction(index, RATE), "camera")


def test_the_frames_of_a_live_source_are_bounded_and_those_lost_are_counted():
    ring = frame_ring.FrameRing(seconds=1.0, max_bytes=600, waits=False)
    for index in range(4):
        ring.add(frame(index))
    cursor = ring.cursor(0.0)
    for index in range(4, 30):
        ring.add(frame(index))
        assert ring.size <= 600
    taken = []
    while (found := cursor.take(10.0)) is not None:
        taken.append(found.index)
    assert (taken, cursor.lost) == ([24, 25, 26, 27, 28, 29], 24)


def test_frames_older_than_the_pre_roll_are_dropped_unless_a_clip_needs_them():
    ring = frame_ring.FrameRing(seconds=0.2, max_bytes=100_000, waits=False)
    for index in range(20):
        ring.add(frame(index))
    assert ring.size == 5 * 100
    cursor = ring.cursor(0.0)
    for index in range(20, 40):
        ring.add(frame(index))
    assert ring.size == 25 * 100
    cursor.close()
    ring.add(frame(40))
    assert ring.size == 5 * 100


def test_a_clip_leaves_frames_of_another_size_out(tmp_path):
    clip = write_video(tmp_path / "source.mkv", images(60), rate=RATE, codec="ffv1", pixel_format="gray")
    with open_source(clip) as source:
        keeper = make_keeper(tmp_path, source, pre_roll=0.5, post_roll=0.5)
        for item in source:
            odd = replace(item, image=np.zeros((40, 40), np.uint8)) if item.index == 30 else item
            keeper.add(result(odd))
            if item.index == 20:
                keeper.begin(message("start", item), result(item))
        keeper.end(message("end", item))
        keeper.close()
    clip = account(tmp_path / "events" / ID)["clip"]
    assert (clip["frames"], clip["lost"]) == (49, 1)


# Streams


def transport_stream(path, **settings) -> bytes:
    return write_clip(path / "stream.ts", **settings).read_bytes()


def test_a_clip_of_standard_input_is_copied_from_the_ring(tmp_path):
    data = transport_stream(tmp_path)
    ring = PacketRing(seconds=20.0, max_bytes=10_000_000)
    with stream_servers.standard_input(data), open_source("-", packets=ring) as source:
        folder = keep(tmp_path, source, 50, 60, pre_roll=1.2, post_roll=0.8)
    clip = account(folder)["clip"]
    assert clip["copied"]
    copied = [units(packet, lengths=True) for packet in packets(folder / "clip.mp4")]
    original = [units(packet, lengths=False) for packet in packets(tmp_path / "stream.ts")]
    assert copied == original[20 : 20 + len(copied)]
    assert len(copied) >= 57
    assert play(folder / "clip.mp4").times[0] == 0


@pytest.mark.skipif(shutil.which("ffprobe") is None, reason="ffprobe is not installed (package ffmpeg)")
@pytest.mark.parametrize("name", ["source.mp4", "source.ts", "source.mkv"])
def test_ffprobe_finds_nothing_wrong_with_a_clip(tmp_path, name):
    settings = {"codec": "ffv1", "pixel_format": "gray"} if name == "source.mkv" else {"options": coding(20)}
    with open_source(write_video(tmp_path / name, images(80), rate=RATE, **settings)) as source:
        folder = keep(tmp_path, source, 40, 60, pre_roll=1.0, post_roll=0.5)
    shown = ["-show_entries", "format=duration:format_tags=title:stream=codec_name,nb_read_frames"]
    command = ["ffprobe", "-v", "warning", "-count_frames", *shown, "-of", "json", folder / "clip.mp4"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    said = json.loads(done.stdout)
    assert said["format"]["tags"]["title"] == f"event {ID}"
    assert float(said["format"]["duration"]) >= 2.5
    assert said["streams"][0]["codec_name"] == "h264"
    assert int(said["streams"][0]["nb_read_frames"]) == account(folder)["clip"]["frames"]


def test_times_that_decrease_or_are_missing_do_not_stop_a_copy(tmp_path):
    clip = write_clip(
        tmp_path / "source.mkv"
    )  # without decoding times, and those of the first packets are unknown
    with av.open(str(clip)) as container:
        assert next(container.demux(video=0)).dts is None
    copy_range(CodedFile(clip, 0), tmp_path / "clip.mp4", (0.0, 2.0), {}, longest=10)
    with av.open(str(tmp_path / "clip.mp4")) as container:
        times = [packet.dts for packet in container.demux(video=0) if packet.size]
    assert all(before < after for before, after in pairwise(times))
    assert os.path.getsize(tmp_path / "clip.mp4") > 1000
