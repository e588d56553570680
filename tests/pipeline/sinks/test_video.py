"""The video stays valid if a run is interrupted inside the muxer, and at extreme frame rates."""

from __future__ import annotations

import errno
import io
import json
import signal
from contextlib import suppress
from fractions import Fraction

import av
import numpy as np
import pytest

from pipeline.sinks import video
from pipeline.sinks.base import Sinks
from pipeline.sinks.coco import CocoSink
from pipeline.sinks.jsonl import JsonlSink
from pipeline.sinks.mot import MotSink
from pipeline.sinks.video import VideoSink
from pipeline.system.errors import OutputError
from pipeline.system.files import output_error
from pipeline.system.signals import defer_signals
from tests.pipeline.sinks.test_sinks import decoded, make_result, source_info

RATE = Fraction(5)
FRAMES = 35  # in fragments of ten
TEXTURE = np.random.default_rng(0).integers(0, 100, (32, 48))


def picture(index):
    """A texture whose brightness increases slowly, so that frames are encoded as differences."""
    return (TEXTURE + 2 * index).astype(np.uint8)


def draw_picture(result):
    return np.repeat(picture(result.frame.index)[..., None], 3, axis=2)


class Disturbed(io.FileIO):
    """A file that calls `disturb(number)` in the middle of each write."""

    def __init__(self, path, disturb):
        super().__init__(path, "w")
        self.disturb, self.number = disturb, 0

    def write(self, data):
        done = super().write(data[: len(data) // 2])
        self.number += 1
        self.disturb(self.number)
        return done + super().write(data[done:])


@pytest.fixture
def endless():
    """Whether the source is endless; some tests override it with both values."""
    return False


@pytest.fixture
def encode(monkeypatch, tmp_path, endless):
    """`encode(disturb)` writes a video to a `Disturbed` file; `encode.handed` counts the frames so far."""

    def run(disturb):
        monkeypatch.setattr(video, "create_file", lambda path: Disturbed(path, disturb))
        run.handed = 0
        with VideoSink(run.path, source_info(rate=RATE), draw_picture, quality=1, endless=endless) as sink:
            for index in range(FRAMES):
                sink.write(make_result(index, pts=index / RATE))
                run.handed += 1

    run.path = tmp_path / "annotated.mp4"
    return run


@pytest.fixture
def writes(encode):
    """Number of frames passed to the sink before each write of a run."""
    before = []
    encode(lambda _: before.append(encode.handed))
    assert before.count(FRAMES) >= 2  # the last fragment and the index
    return before


def count_complete(path):
    """Returns the number of complete frames of a file that may be truncated; checks the pixels of each."""
    count = 0
    headless = (
        av.error.DecoderNotFoundError,
        av.error.EOFError,
        IndexError,
    )  # truncated before the first one
    with suppress(av.error.InvalidDataError, *headless), av.open(str(path)) as container:
        for frame in container.decode(video=0):
            if frame.is_corrupt:
                break
            assert frame.pts * frame.time_base == count / RATE
            assert abs(frame.to_ndarray(format="gray").astype(int) - picture(count)).mean() < 0.9
            count += 1
    return count


@pytest.mark.parametrize("endless", [False, True])
def test_the_file_of_a_killed_process_is_valid_at_every_moment(encode, writes, tmp_path):
    copy, counts = tmp_path / "copy.mp4", []

    def take(_):
        copy.write_bytes(encode.path.read_bytes())
        counts.append(count_complete(copy))

    encode(take)
    assert counts == sorted(counts)
    assert count_complete(encode.path) == FRAMES
    for handed, count in zip(writes, counts, strict=True):
        # ten are in the encoder, ten in an incomplete fragment, and one begins the next
        assert count >= handed - 21


@pytest.mark.parametrize("endless", [False, True])
def test_an_interrupt_inside_the_muxer_is_raised_after_the_frame_is_written(encode, writes):
    for chosen, handed in enumerate(writes, start=1):
        with pytest.raises(KeyboardInterrupt):
            encode(lambda number, chosen=chosen: number == chosen and signal.raise_signal(signal.SIGINT))
        assert count_complete(encode.path) == min(handed + 1, FRAMES)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError])
def test_an_exception_inside_the_muxer_is_raised_and_complete_fragments_stay(encode, writes, error):
    def disturb(number):
        if number == chosen:
            raise error

    kept = []
    for chosen in range(len(writes) - 3, len(writes) + 1):  # noqa: B007 - `disturb` uses it
        with pytest.raises(error):
            encode(disturb)
        kept.append(count_complete(encode.path))
    assert kept == [20, 30, 30, FRAMES]  # the third and fourth fragment, the index, the header


def written(path, **settings):
    """Writes a video of 35 frames; returns its bytes."""
    with VideoSink(path, source_info(rate=RATE), draw_picture, quality=1, **settings) as sink:
        for index in range(FRAMES):
            sink.write(make_result(index, pts=index / RATE))
    return path.read_bytes()


def top_level_boxes(data):
    """Returns type and offset of the top-level boxes of an MP4."""
    offset, found = 0, []
    while offset < len(data):
        found.append((data[offset + 4 : offset + 8].decode(), offset))
        offset += int.from_bytes(data[offset : offset + 4], "big")
    return found


def box_types(data):
    return [kind for kind, _ in top_level_boxes(data)]


def test_a_video_of_an_endless_source_becomes_the_same_regular_mp4(tmp_path):
    plain, endless = tmp_path / "plain.mp4", tmp_path / "endless.mp4"
    for data in (written(plain), written(endless, endless=True)):
        assert sorted(box_types(data)) == ["free", "ftyp", "mdat", "moov"]
    with av.open(str(plain)) as first, av.open(str(endless)) as second:
        assert first.streams.video[0].frames == second.streams.video[0].frames == FRAMES
        for one, other in zip(first.decode(video=0), second.decode(video=0), strict=True):
            assert one.pts * one.time_base == other.pts * other.time_base
            np.testing.assert_array_equal(one.to_ndarray(), other.to_ndarray())
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["endless.mp4", "plain.mp4"]


def test_a_large_video_of_an_endless_source_stays_in_fragments_until_defragmented(tmp_path, monkeypatch):
    monkeypatch.setattr(video, "_MAX_DEFRAGMENTED_BYTES", 1000)
    path = tmp_path / "annotated.mp4"
    assert box_types(written(path, endless=True)) == ["ftyp", "moov", *["moof", "mdat"] * 4]
    assert count_complete(path) == FRAMES
    assert video.defragment(path) == FRAMES
    assert "moof" not in box_types(path.read_bytes())
    assert count_complete(path) == FRAMES


def test_a_file_that_is_truncated_in_its_header_is_left_unchanged(tmp_path, monkeypatch):
    monkeypatch.setattr(video, "_MAX_DEFRAGMENTED_BYTES", 0)
    path = tmp_path / "annotated.mp4"
    data = written(path, endless=True)
    (first, *_) = (offset for kind, offset in top_level_boxes(data) if kind == "mdat")
    for end in range(0, first, 5):
        path.write_bytes(data[:end])
        assert video.defragment(path) == 0
        assert path.read_bytes() == data[:end]
    assert list(tmp_path.iterdir()) == [path]


def test_without_room_for_the_copy_the_fragments_stay(tmp_path, monkeypatch, caplog):
    def full(path):
        raise OutputError(f"cannot write {path}: No space left on device")

    monkeypatch.setattr(video, "defragment", full)
    path = tmp_path / "annotated.mp4"
    written(path, endless=True)
    assert count_complete(path) == FRAMES
    assert "annotated.mp4 stays in fragments: cannot write" in caplog.text


def write_six(sinks):
    with sinks:
        for index in range(6):
            sinks.write(make_result(index))


def test_an_interrupt_leaves_the_same_frames_in_all_files(tmp_path):
    class Interrupting(JsonlSink):
        def write(self, result):
            super().write(result)
            if result.frame.index == 3:
                signal.raise_signal(signal.SIGINT)

        def __exit__(self, *error):
            signal.raise_signal(signal.SIGINT)
            super().__exit__(*error)

    paths = [tmp_path / name for name in ("coco", "lines", "mot")]
    sinks = Sinks(kind(path) for kind, path in zip((CocoSink, Interrupting, MotSink), paths, strict=True))
    with pytest.raises(KeyboardInterrupt):
        write_six(sinks)
    coco, lines, mot = (path.read_text() for path in paths)
    assert len(json.loads(coco)) == lines.count("\n") == mot.count("\n") == 4


def test_deferred_signals_are_handled_afterwards_as_often_as_they_came():
    came = []
    before = signal.signal(signal.SIGTERM, lambda number, _: came.append(number))
    try:
        with defer_signals(), defer_signals():
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
            assert came == []
        assert came == [signal.SIGTERM] * 2
        signal.raise_signal(signal.SIGTERM)
        assert len(came) == 3
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    "rate", [Fraction(1, 373), Fraction(1, 20_000), Fraction(1, 10**7), Fraction(123, 10**5)]
)
def test_frames_that_are_minutes_apart_are_written(tmp_path, rate):
    path = tmp_path / "annotated.mp4"
    with VideoSink(path, source_info(rate=rate), draw_picture) as sink:
        for index in range(4):
            sink.write(make_result(index, pts=index / rate))
    interval = min(1 / rate, 20_000)  # seconds; the longest interval that MP4 can represent
    assert [pts for pts, _ in decoded(path)] == pytest.approx([index * interval for index in range(4)])
    assert sink.adjusted == (3 if interval < 1 / rate else 0)


@pytest.mark.parametrize("sink_type", [JsonlSink, CocoSink, MotSink, VideoSink])
def test_a_folder_in_the_place_of_the_file_is_reported_with_a_remedy(tmp_path, sink_type):
    arguments = (source_info(), draw_picture) if sink_type is VideoSink else ()
    with pytest.raises(
        OutputError, match=r"cannot write .*; it is a folder; remove it or choose another output"
    ):
        with sink_type(tmp_path, *arguments):
            pass


def test_a_file_in_the_place_of_the_folder_is_reported_with_a_remedy(tmp_path):
    path = tmp_path / "out"
    path.touch()
    with pytest.raises(FileExistsError) as caught:
        path.mkdir(exist_ok=True)
    assert caught.value.errno == errno.EEXIST
    assert str(output_error(path, caught.value)).endswith("out: File exists; choose a folder for the outputs")
