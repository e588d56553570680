"""Live sources reconnect after a loss, silence times out, and every frame is accounted for."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time
from contextlib import contextmanager
from fractions import Fraction
from itertools import count, islice

import numpy as np
import pytest

from pipeline.config.parsing import build
from pipeline.config.schema import LiveConfig, RunConfig, SourceConfig
from pipeline.runner.run_record import RecentLatency
from pipeline.sources.live import LiveSource, backoff, queue_policy
from pipeline.sources.pending import PendingSource
from pipeline.sources.reader import Reader
from pipeline.sources.source import Source
from pipeline.structures.frame import Frame, SourceInfo
from pipeline.system.errors import SourceLost
from pipeline.system.prefetch import prefetch
from pipeline.system.signals import StopRequest
from tests.support import stream_servers
from tests.support.media import grey_frames
from tests.support.outputs import lines, report

RAW = {"format": "raw", "size": "96x64", "dtype": "uint8", "timeout": 10.0}
QUICK = {"backoff": 0.02, "backoff_cap": 0.05}
SECONDS = 20.0


def watched(port, stop=None, *, source=None, **live) -> LiveSource:
    table = {"source": {**RAW, **(source or {})}, "live": {**QUICK, **live}}
    return PendingSource(f"tcp://127.0.0.1:{port}", build(RunConfig, table), stop or StopRequest()).wait()


def raw(images) -> bytes:
    return b"".join(image.tobytes() for image in images)


def in_turn(*servers):
    """Returns a server that handles each connection by the next of `servers`, the last one repeatedly."""
    number = count()
    return lambda connection: servers[min(next(number), len(servers) - 1)](connection)


def refuse(connection) -> None:
    connection.shutdown(socket.SHUT_RDWR)


@pytest.mark.slow
def test_a_source_that_comes_back_is_one_sequence():
    images = grey_frames(9)
    serve = in_turn(
        stream_servers.sending(raw(images[:4])), refuse, stream_servers.sending(raw(images[4:])), refuse
    )
    started = time.monotonic()
    with stream_servers.listener(serve) as port, watched(port, reconnect="2") as source:
        frames = []
        with pytest.raises(SourceLost, match="lost after 9 frames and 2 attempts to connect again"):
            frames.extend(source)
    # reconnect = 2: the refusal is the first attempt; the connection after it is too short to reset the count
    np.testing.assert_array_equal([frame.image for frame in frames], images)
    assert [frame.index for frame in frames] == list(range(9))
    assert source.reconnects == 1
    assert [frame.connection > 0 for frame in frames] == [False] * 4 + [True] * 5
    times = [frame.pts for frame in frames]
    assert times == sorted(set(times))
    away = frames[4].arrival - frames[3].arrival
    assert abs(float(times[4] - times[3]) - max(away, 1 / 30)) < 1e-4
    assert time.monotonic() - started < SECONDS


def test_without_reconnecting_the_end_of_a_stream_is_the_end():
    with stream_servers.listener(stream_servers.sending(raw(grey_frames(3)))) as port:
        with watched(port, reconnect="none") as source:
            assert len(list(source)) == 3


@pytest.mark.slow
def test_max_frames_counts_over_all_connections():
    with stream_servers.listener(stream_servers.sending(raw(grey_frames(3)))) as port:
        with watched(port, reconnect="forever", source={"max_frames": 7}) as source:
            assert [frame.index for frame in source] == list(range(7))
    assert source.reconnects == 2


def test_a_source_that_falls_silent_is_opened_again():
    images = grey_frames(4)
    silent = stream_servers.sending(raw(images[:2]), then_silent=True)
    with stream_servers.listener(in_turn(silent, stream_servers.sending(raw(images[2:])))) as port:
        with watched(port, reconnect="forever", source={"max_frames": 4, "timeout": 2.5}) as source:
            started = time.monotonic()
            frames = list(source)
    assert len(frames) == 4
    assert 1 < time.monotonic() - started < SECONDS


class Stuck(Reader):
    """Yields a frame and then blocks, even after `stop`."""

    def __init__(self):
        self.info = SourceInfo("stuck", 96, 64, Fraction(30), None, 8, 1, live=True)
        self.released = threading.Event()

    def frames(self):
        yield Frame(grey_frames(1)[0], 0, Fraction(0), "stuck")
        self.released.wait(60)


def test_a_reader_that_never_returns_is_abandoned(monkeypatch):
    readers = [Stuck(), Stuck()]
    config = SourceConfig(timeout=0.2)
    monkeypatch.setattr("pipeline.sources.live.open_source", lambda *_, **__: Source(readers[1]))
    monkeypatch.setattr("pipeline.sources.live.CLOSE_SECONDS", 0.1)
    policy = LiveConfig(reconnect="1", backoff=0.01, backoff_cap=0.01)
    started = time.monotonic()
    with LiveSource(Source(readers[0]), "stuck", config, policy, stop=StopRequest()) as source:
        frames = list(islice(source, 2))
        with pytest.raises(SourceLost, match=r"an attempt to connect again: no frame for 0\.2 s"):
            next(source)
    assert [frame.connection for frame in frames] == [0, 1]
    assert time.monotonic() - started < SECONDS
    for reader in readers:
        reader.released.set()


def test_a_signal_ends_the_wait_for_a_reconnection():
    stop = StopRequest()
    with stream_servers.listener(in_turn(stream_servers.sending(raw(grey_frames(2))), refuse)) as port:
        with watched(port, stop, reconnect="forever", backoff=60, backoff_cap=60) as source:
            assert len(list(islice(source, 2))) == 2
            threading.Timer(0.3, lambda: setattr(stop, "signal", 15)).start()
            started = time.monotonic()
            assert next(source, None) is None
    assert time.monotonic() - started < SECONDS


def test_waits_grow_up_to_the_cap_and_differ():
    policy = LiveConfig(backoff=0.5, backoff_cap=30)
    for attempt, longest in ((1, 0.5), (2, 1), (5, 8), (7, 30), (10_000, 30)):
        waits = [backoff(attempt, policy) for _ in range(50)]
        assert longest / 2 <= min(waits) < max(waits) <= longest
        assert len(set(waits)) > 40


@pytest.mark.parametrize("text", ["-1", "often", "1.5", ""])
def test_an_invalid_number_of_attempts_is_refused(text):
    with pytest.raises(ValueError, match="expected none, forever or a number"):
        LiveConfig(reconnect=text)


def test_by_default_live_sources_drop_the_oldest_and_files_wait():
    def on_full(live, **options):
        info = SourceInfo("a", 96, 64, Fraction(30), None, 8, 1, live=live)
        chosen = queue_policy(info, LiveConfig(**options), print)
        return chosen.on_full, chosen.size

    assert on_full(False) == ("wait", 8)
    assert on_full(True) == ("drop-oldest", 2)
    assert on_full(True, on_full="wait") == ("wait", 8)
    assert on_full(False, on_full="drop-newest", queue=5) == ("drop-newest", 5)


@pytest.mark.parametrize(("on_full", "kept"), [("drop-oldest", [8, 9]), ("drop-newest", [1, 2])])
def test_items_that_do_not_fit_are_dropped_and_reported(on_full, kept):
    dropped, go_on, everything = [], threading.Event(), threading.Event()

    def items():
        yield 0
        assert go_on.wait(SECONDS)
        yield from range(1, 10)
        everything.set()

    taken = prefetch(items(), size=2, on_full=on_full, dropped=dropped.append)
    assert next(taken) == 0
    go_on.set()
    assert everything.wait(SECONDS)
    assert list(taken) == kept
    assert dropped == [number for number in range(1, 10) if number not in kept]


@pytest.mark.parametrize("on_full", ["drop-oldest", "drop-newest"])
def test_every_frame_is_written_or_counted_as_dropped(clip, process, on_full):
    folder = process(clip, sections={"live": {"on_full": on_full, "queue": 1}})
    frames = report(folder)["frames"]
    dropped = frames["dropped"]["queue full"]
    assert frames["decoded"] == 16 == frames["written"] + dropped
    assert frames["unprocessed"] == 0
    written = lines(folder)
    assert len(written) == frames["written"]
    told = [line["gap"] for line in written if "gap" in line]
    assert report(folder)["gaps"].get("dropped", 0) == len(told)
    assert {gap["event"] for gap in told} <= {"dropped"}
    # frames dropped before the first written one or after the last do not lie between two
    indices = [line["frame"] for line in written]
    assert sum(gap["missing"] for gap in told) == indices[-1] - indices[0] + 1 - len(indices)


def test_a_live_run_reports_latency_and_gaps(process):
    clips = [
        stream_servers.sending(raw(grey_frames(5, 64, 64))),
        stream_servers.sending(raw(grey_frames(4, 64, 64))),
    ]
    sections = {"source": {**RAW, "size": "64x64", "max_frames": 9}}
    sections["live"] = {**QUICK, "on_full": "wait"}
    with stream_servers.listener(in_turn(*clips)) as port:
        folder = process(f"tcp://127.0.0.1:{port}", sections=sections)
    facts = report(folder)
    assert facts["frames"]["written"] == 9
    assert facts["gaps"] == {"reconnect": 1}
    latency = facts["latency_ms"]
    assert 0 < latency["p50"] <= latency["p95"] <= latency["p99"] <= latency["max"] < 1e3 * SECONDS
    assert [line["behind"] for line in lines(folder)] == [1, 2, 3, 4, 5, 1, 2, 3, 4]
    (gap,) = (line["gap"] for line in lines(folder) if "gap" in line)
    assert (gap["event"], gap["window"]) == ("reconnect", "restarted")


def test_frames_of_another_size_after_a_reconnection_are_resized(process):
    sections = {"source": {"timeout": 5.0, "max_frames": 8}, "live": {**QUICK, "on_full": "wait"}}
    small = [
        stream_servers.sending(y4m(grey_frames(4, 64, 64))),
        stream_servers.sending(y4m(grey_frames(4, 96, 128))),
    ]
    with stream_servers.listener(in_turn(*small)) as port:
        folder = process(f"tcp://127.0.0.1:{port}", sections=sections)
    assert report(folder)["source"]["width"] == 64
    assert report(folder)["gaps"] == {"resize": 1}
    assert [line["behind"] for line in lines(folder)] == [1, 2, 3, 4, 1, 2, 3, 4]


def y4m(images) -> bytes:
    """Returns a y4m stream, whose header declares the size."""
    height, width = images[0].shape
    head = f"YUV4MPEG2 W{width} H{height} F30:1 Cmono\n".encode()
    return head + b"".join(b"FRAME\n" + image.tobytes() for image in images)


def test_the_latency_of_recent_frames_is_reported():
    recent = RecentLatency()
    assert str(recent) == ""
    for milliseconds in (*range(1, 101), *[10] * 100):
        recent.add(milliseconds / 1e3)
    assert str(recent) == "latency 10 ms, 95 % below 90 ms"


@contextmanager
def ffmpeg(port):
    """Runs FFmpeg as a camera that serves one reader on a port, until the block ends."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg is not installed: no camera to test with")
    pattern = ["-f", "lavfi", "-i", "testsrc2=size=96x64:rate=30"]
    coded = ["-c:v", "mpeg2video", "-g", "5", "-f", "mpegts", f"tcp://127.0.0.1:{port}?listen=1"]
    camera = subprocess.Popen(["ffmpeg", "-v", "quiet", "-re", *pattern, *coded], stdin=subprocess.DEVNULL)
    try:
        yield
    finally:
        camera.kill()
        camera.wait()


def opened(port):
    """Returns the source once the camera listens."""
    end = time.monotonic() + SECONDS
    while True:
        try:
            return watched(
                port,
                source={"format": "mpegts", "size": "", "dtype": "", "timeout": 5.0},
                reconnect="forever",
            )
        except Exception:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def test_a_camera_that_is_away_for_two_seconds_is_reconnected():
    port = stream_servers.free_port()
    with ffmpeg(port):
        source = opened(port)
        before = list(islice(source, 20))
    away = time.monotonic()
    back = threading.Event()

    def later():
        time.sleep(2)
        with ffmpeg(port):
            back.wait(SECONDS)

    thread = threading.Thread(target=later)
    thread.start()
    try:
        for frame in source:
            if frame.connection:
                break
        after = [frame, *islice(source, 10)]
    finally:
        back.set()
        source.close()
        thread.join()
    assert time.monotonic() - away > 2
    assert source.reconnects == 1
    indices = [frame.index for frame in (*before, *after)]
    assert indices == sorted(set(indices))
    # presentation times include the outage
    assert after[0].pts - before[-1].pts > 1.5
