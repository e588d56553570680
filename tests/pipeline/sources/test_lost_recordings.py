"""A recording at an address whose server dies is a lost source, and no complete one."""

from __future__ import annotations

import threading
import time
from itertools import islice
from pathlib import Path

import pytest

from pipeline.sources.opening import open_source
from pipeline.system.errors import SourceLost
from tests.support import stream_servers
from tests.support.media import LOSSLESS, grey_frames, write_video

FRAMES, SECONDS = 240, 8.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the same frames at 30 frames per second in several containers."""
    folder = tmp_path_factory.mktemp("recordings")
    for suffix in ("ts", "mkv", "avi", "mp4"):
        options = {"container_options": {"movflags": "faststart"}} if suffix == "mp4" else {}
        write_video(folder / f"a.{suffix}", grey_frames(FRAMES), **LOSSLESS, **options)
    return folder


@pytest.fixture(scope="module")
def stream(folder):
    return (folder / "a.ts").read_bytes()


def dying_web_server(path: Path, dead: threading.Event, *, then_silent: bool = False):
    """Serves a file by HTTP until the server is `dead`, and no more than three fifths from its first part.

    Its end can be read, as it is when a recording is opened.
    """
    data = path.read_bytes()
    end = len(data) * 3 // 5

    def serve(connection) -> None:
        request = connection.recv(65536).decode()
        if dead.is_set():
            return connection.close()
        _, found, text = request.partition("Range: bytes=")
        begin = int(text.partition("-")[0]) if found else 0
        head = "HTTP/1.0 206 Partial Content\r\nConnection: close\r\n"
        head += f"Content-Range: bytes {begin}-{len(data) - 1}/{len(data)}\r\n"
        connection.sendall(f"{head}Content-Length: {len(data) - begin}\r\n\r\n".encode())
        connection.sendall(data[begin : end if begin < end else None])
        if begin < end:
            dead.wait(10)
            if then_silent:
                stream_servers.silence(connection)
        connection.close()

    return stream_servers.listener(serve)


def test_a_whole_recording_over_rtsp_is_complete(stream):
    with stream_servers.listener(stream_servers.rtsp(stream, seconds=SECONDS)) as port:
        with open_source(f"rtsp://127.0.0.1:{port}/1", timeout=2) as source:
            assert not source.info.live
            assert (
                len(list(source)) >= FRAMES - 1
            )  # the last one is marked as incomplete when the server closes


@pytest.mark.parametrize("then_silent", [False, True], ids=["closed", "silent"])
def test_a_recording_over_rtsp_whose_server_dies_is_lost(stream, then_silent):
    part = stream[: len(stream) // 2]
    frames = []
    serve = stream_servers.rtsp(part, seconds=SECONDS, then_silent=then_silent)
    with stream_servers.listener(serve) as port:
        with open_source(f"rtsp://127.0.0.1:{port}/1", timeout=1) as source:
            started = time.monotonic()
            with pytest.raises(SourceLost, match=r"/1: lost after \d+ frames: "):
                frames.extend(source)
    assert 100 <= len(frames) <= 122
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("suffix", ["ts", "mkv", "avi", "mp4"])
def test_a_whole_recording_over_http_is_complete(folder, suffix):
    with stream_servers.web_server(folder) as port:
        with open_source(f"http://127.0.0.1:{port}/a.{suffix}", timeout=2) as source:
            assert not source.info.live
            assert len(list(source)) == FRAMES


@pytest.mark.parametrize("then_silent", [False, True], ids=["closed", "silent"])
@pytest.mark.parametrize("suffix", ["ts", "mkv", "mp4"])
def test_a_recording_over_http_whose_server_dies_is_lost(folder, suffix, then_silent):
    frames, dead = [], threading.Event()
    with dying_web_server(folder / f"a.{suffix}", dead, then_silent=then_silent) as port:
        with open_source(f"http://127.0.0.1:{port}/a.{suffix}", timeout=1) as source:
            dead.set()
            started = time.monotonic()
            with pytest.raises(SourceLost, match=r"lost after \d+( of 240)? frames: "):
                frames.extend(source)
    assert 80 <= len(frames) <= 180
    assert time.monotonic() - started < 8


def test_the_requested_end_of_a_recording_is_no_loss(stream):
    with stream_servers.listener(stream_servers.rtsp(stream, seconds=100)) as port:
        with open_source(f"rtsp://127.0.0.1:{port}/1", timeout=2, max_frames=20) as source:
            assert len(list(islice(source, 30))) == 20
