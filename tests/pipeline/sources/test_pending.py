"""Sources that are opened in a thread: repeated attempts, errors, and the end of a wait."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from pipeline.config.parsing import build
from pipeline.config.schema import RunConfig
from pipeline.sources import pending
from pipeline.sources.opening import waits_for_peer
from pipeline.sources.pending import PendingSource
from pipeline.sources.reader import SourceUnavailable
from pipeline.system.errors import Interrupted, SourceError
from pipeline.system.signals import StopRequest
from tests.support import stream_servers
from tests.support.media import grey_frames, write_video

QUICK = {"reconnect": 3, "backoff": 0.01, "backoff_cap": 0.02}
CONFIG = build(RunConfig, {"live": QUICK})


@pytest.mark.parametrize(
    ("location", "waits"),
    [("rtsp://camera/1", True), ("-", True), ("0", True), ("clip.mp4", False), ("images/*.png", False)],
)
def test_addresses_cameras_and_standard_input_may_wait(location, waits):
    assert waits_for_peer(location) == waits


@pytest.mark.parametrize(
    ("retry", "attempts", "end"),
    [(False, 1, "Connection refused"), (True, 4, "Connection refused; 3 more attempts failed, too")],
)
def test_an_address_without_a_server_is_tried_again_on_request(monkeypatch, retry, attempts, end):
    tried, open_source = [], pending.open_source

    def counted(location, *arguments, **options):
        tried.append(location)
        return open_source(location, *arguments, **options)

    monkeypatch.setattr(pending, "open_source", counted)
    address = f"tcp://127.0.0.1:{stream_servers.free_port()}"
    with PendingSource(address, CONFIG, StopRequest(), retry=retry) as source:
        with pytest.raises(SourceError) as caught:
            source.wait()
        assert source.decided
        assert not source.opened
        assert (source.outage is not None) == retry
    assert tried == [address] * attempts
    assert str(caught.value) == f"{address} cannot be opened: {end}"


@pytest.mark.parametrize("location", ["nowhere.mp4", "gopher://camera/1", "rtsp://camera/a b"])
def test_what_cannot_come_later_is_tried_once(location, caplog):
    with (
        PendingSource(location, CONFIG, StopRequest(), retry=True) as source,
        pytest.raises(SourceError) as caught,
    ):
        source.wait()
    assert not isinstance(caught.value, SourceUnavailable)
    assert caplog.records == []


def test_a_camera_that_is_missing_may_come_later():
    with (
        PendingSource("97", CONFIG, StopRequest(), retry=True) as source,
        pytest.raises(SourceError, match=r"there is no /dev/video97; 3 more attempts failed, too"),
    ):
        source.wait()


def test_a_signal_ends_the_wait():
    stop = StopRequest()
    with stream_servers.listener(stream_servers.silence) as port:
        source = PendingSource(f"tcp://127.0.0.1:{port}", CONFIG, stop)
        stop.signal = 15
        with source, pytest.raises(Interrupted):
            source.wait()


def test_a_source_that_is_opened_after_the_wait_is_closed(monkeypatch, tmp_path):
    clip, go_on, closed = (
        write_video(tmp_path / "a.mp4", grey_frames(3)),
        threading.Event(),
        threading.Event(),
    )
    open_source = pending.open_source

    def slow(*arguments, **options):
        assert go_on.wait(20)
        opened = open_source(*arguments, **options)
        monkeypatch.setattr(opened, "close", closed.set)
        return opened

    monkeypatch.setattr(pending, "open_source", slow)
    with PendingSource(str(clip), CONFIG, StopRequest()) as source:
        source.close()
        with pytest.raises(SourceError, match="was closed before it was open"):
            source.wait()
    go_on.set()
    assert closed.wait(20)


def test_a_file_is_read_as_it_is(tmp_path):
    frames = grey_frames(3)
    clip = write_video(tmp_path / "a.mkv", frames)
    began = time.monotonic()
    with PendingSource(str(clip), CONFIG, StopRequest()) as source:
        read = [frame.image for frame in source.wait()]
    assert time.monotonic() - began < 10
    assert len(read) == 3
    assert all(image.shape == frames[0].shape for image in map(np.asarray, read))
