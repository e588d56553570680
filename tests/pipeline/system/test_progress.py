"""Progress is a bar on a terminal and plain lines elsewhere, and never a reason to stop."""

import io
import threading

import pytest

from pipeline.system import progress
from pipeline.system.progress import Progress, format_duration, working_on
from tests.support.clock import Clock


@pytest.fixture
def time(monkeypatch):
    time = Clock()
    monkeypatch.setattr(progress, "time", time)
    monkeypatch.setattr("tqdm.std.time", time.monotonic)
    return time


class Terminal(io.StringIO):
    def isatty(self):
        return True


def advance(time, stream, *, total, frames, mode="auto", seconds=1.0):
    """Returns the content of `stream` after frames that take `seconds` each."""
    with Progress(total, mode=mode, stream=stream) as bar:
        for _ in range(frames):
            time.now += seconds
            bar.advance()
    return stream.getvalue()


def test_plain_progress_is_a_line_every_five_seconds_and_one_at_the_end(time):
    assert advance(time, io.StringIO(), total=8, frames=8).splitlines() == [
        "5/8 frames, 1.0 frames/s, 0:03 left",
        "8/8 frames, 1.0 frames/s, 0:00 left",
    ]


def test_a_slow_rate_is_not_rounded_to_zero(time):
    assert advance(time, io.StringIO(), total=3, frames=2, seconds=40.0).splitlines() == [
        "1/3 frames",
        "2/3 frames, 0.025 frames/s, 0:40 left",
    ]


@pytest.mark.parametrize(
    ("stream", "first", "second"),
    [
        (io.StringIO, "1/9 frames", "6/9 frames, 1.0 frames/s, 0:03 left"),
        (Terminal, "1/9 frames, ? frames/s, ? left", "2/9 frames,  1.00 frames/s, 00:07 left"),
    ],
    ids=["log", "tty"],
)
def test_what_the_first_frame_waits_for_does_not_count_for_the_rate(time, stream, first, second):
    with Progress(9, mode="auto", stream=(text := stream())) as bar:
        time.now += 300
        for _ in range(6):
            bar.advance()
            time.now += 1
    lines = [line for line in text.getvalue().replace("\r", "\n").splitlines() if line]
    assert lines[0].endswith(first)
    assert lines[1].endswith(second)


def test_the_last_frame_is_reported_once(time):
    assert advance(time, io.StringIO(), total=5, frames=5).splitlines() == [
        "5/5 frames, 1.0 frames/s, 0:00 left"
    ]


def test_a_bar_draws_over_itself_and_ends_its_line(time):
    text = advance(time, Terminal(), total=2, frames=2, seconds=0.5)
    start, half, *whole = text.split("\r")
    assert start == ""
    assert half == "[############............] 1/2 frames, ? frames/s, ? left"
    assert set(whole) == {
        "[########################] 2/2 frames,  2.00 frames/s, 00:00 left",
        "[########################] 2/2 frames,  2.00 frames/s, 00:00 left\n",
    }


def test_a_bar_is_not_drawn_for_every_fast_frame(time):
    text = advance(time, Terminal(), total=1000, frames=1000, seconds=0.01)
    assert 40 <= text.count("\r") <= 51


def test_off_is_silent(time):
    assert advance(time, Terminal(), total=5, frames=5, mode="off") == ""


@pytest.mark.parametrize("mode", ["plain", "bar"])
def test_nothing_is_said_before_the_first_frame(time, mode):
    assert advance(time, io.StringIO(), total=5, frames=0, mode=mode) == ""


@pytest.mark.parametrize(("stream", "returns"), [(io.StringIO, False), (Terminal, True)], ids=["log", "tty"])
def test_auto_draws_a_bar_only_on_a_terminal(time, stream, returns):
    assert ("\r" in advance(time, stream(), total=3, frames=3)) is returns


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("plain", "6 frames, 1.0 frames/s\n"), ("bar", "\r6 frames,  1.00 frames/s\n")],
)
def test_without_a_known_total_nothing_is_promised(time, mode, expected):
    text = advance(time, io.StringIO(), total=None, frames=6, mode=mode)
    assert text.endswith(expected)
    assert "left" not in text
    assert "[#" not in text


def test_more_frames_than_announced_do_no_harm(time):
    lines = advance(time, io.StringIO(), total=4, frames=6).splitlines()
    assert lines[-1] == "6/4 frames, 1.0 frames/s, 0:00 left"


@pytest.mark.parametrize("mode", ["plain", "bar"])
def test_a_reader_that_went_away_silences_the_progress(time, mode):
    class Broken(io.StringIO):
        writes = 0

        def write(self, text):
            Broken.writes += 1
            raise BrokenPipeError

    advance(time, Broken(), total=20, frames=20, mode=mode)
    assert Broken.writes == 1


@pytest.mark.parametrize("mode", ["plain", "bar"])
def test_a_stderr_closed_on_the_way_silences_the_progress(time, mode):
    stream, notes = io.StringIO(), []
    with Progress(20, mode=mode, stream=stream, note=lambda: notes.append(1) or "") as bar:
        stream.close()
        for _ in range(3):
            time.now += 10
            bar.advance()
    assert len(notes) == (1 if mode == "plain" else 3)  # tqdm itself ignores a closed stream


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00"),
        (5.4, "0:05"),
        (59.6, "1:00"),
        (65, "1:05"),
        (3599.7, "1:00:00"),
        (7389, "2:03:09"),
        (360000, "100:00:00"),
    ],
)
def test_durations_read_like_a_clock(seconds, text):
    assert format_duration(seconds) == text


@pytest.mark.parametrize(("stream", "mode"), [(io.StringIO(), "plain"), (Terminal(), "bar")])
def test_what_takes_long_is_told_until_the_first_frame(monkeypatch, stream, mode):
    monkeypatch.setattr(progress, "BAR_SECONDS", 0.01)
    monkeypatch.setattr(progress, "FIRST_SECONDS", 0.03)
    told = threading.Event()
    write = stream.write
    monkeypatch.setattr(stream, "write", lambda text: (write(text), "computing" in text and told.set())[0])
    with Progress(3, mode=mode, stream=stream) as bar:
        working_on("computing frame 0")
        assert told.wait(20)
        working_on("")
        bar.advance()
    text = stream.getvalue()
    assert "computing frame 0, 0 s" in text
    assert "1/3 frames" in text


def test_without_anything_that_takes_long_nothing_is_told(monkeypatch):
    monkeypatch.setattr(progress, "BAR_SECONDS", 0.01)
    monkeypatch.setattr(progress, "FIRST_SECONDS", 0.0)
    working_on("left by an earlier run")
    stream = io.StringIO()
    with Progress(3, mode="plain", stream=stream) as bar:
        assert not bar._ended.wait(0.1)
    assert stream.getvalue() == ""
