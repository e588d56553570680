"""Runs continue through lost packets, corrupted bytes and clock changes, and account for every frame."""

from __future__ import annotations

import gc
import random
import socket
import threading
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta

import av
import pytest

from pipeline.config.parsing import build
from pipeline.config.schema import RunConfig
from pipeline.runner import run_json
from pipeline.sources.opening import open_source
from pipeline.sources.pending import PendingSource
from pipeline.system.errors import SourceError, SourceLost
from pipeline.system.signals import StopRequest
from tests.faults.fuzz import interrupted
from tests.support import stream_servers
from tests.support.media import grey_frames, write_video
from tests.support.outputs import lines, report

FLIP_SEEDS = 200
FLIP_SECONDS = 10.0
DAY = 86400.0


# Lost packets


@contextmanager
def lossy(port, *, share, seed):
    """Relays the datagrams of a port except for a share; yields the port of the relay and the lost sizes."""
    with socket.socket(type=socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        onward = probe.getsockname()[1]
    chance, lost, stop = random.Random(seed), [], threading.Event()

    def relay():
        with socket.socket(type=socket.SOCK_DGRAM) as incoming, socket.socket(type=socket.SOCK_DGRAM) as out:
            incoming.bind(("127.0.0.1", port))
            incoming.settimeout(0.1)
            while not stop.is_set():
                with suppress(TimeoutError, ConnectionRefusedError):
                    data = incoming.recv(65536)
                    if chance.random() < share:
                        lost.append(len(data))
                    else:
                        out.sendto(data, ("127.0.0.1", onward))

    thread = threading.Thread(target=relay, daemon=True)
    thread.start()
    try:
        yield onward, lost
    finally:
        stop.set()
        thread.join()


@pytest.fixture(scope="module")
def camera_stream(tmp_path_factory):
    """A transport stream of 300 frames with a key frame every ten."""
    path = tmp_path_factory.mktemp("camera") / "a.ts"
    return write_video(path, grey_frames(30, 64, 64) * 10, options={"g": "10", "bf": "0"}).read_bytes()


@pytest.mark.parametrize("share", [0.01, 0.1])
def test_a_stream_with_lost_packets_is_processed_to_the_end(
    mote, tmp_path, nano_weights, camera_stream, share
):
    out, wanted = tmp_path / "out", 60
    with (
        stream_servers.datagrams(camera_stream, pause=0.004) as port,
        lossy(port, share=share, seed=1) as (heard, lost),
    ):
        address = f"udp://127.0.0.1:{heard}"
        options = ["--source-format", "mpegts", "--timeout", 10, "--reconnect", "none", "--progress", "off"]
        wanted_frames = ["--max-frames", wanted, "--output", out, "--weights", nano_weights]
        reply = mote(address, *options, *wanted_frames)
    assert len(lost) >= 100 * share
    assert (reply.code, reply.err) == (0, "")
    frames, written = report(out)["frames"], lines(out)
    assert frames["decoded"] == wanted
    assert frames["written"] + sum(frames["dropped"].values()) == wanted
    assert frames["unprocessed"] == 0
    assert len(written) == frames["written"] > 0
    indices = [line["frame"] for line in written]
    assert indices == sorted(set(indices))


# Abandoned connections


def test_abandoned_connections_keep_no_pictures_in_memory(camera_stream):
    table = {"source": {"format": "mpegts", "timeout": 20.0}}
    table["live"] = {"reconnect": "forever", "backoff": 0.01, "backoff_cap": 0.01}
    short = camera_stream[: len(camera_stream) // 5640 * 188]  # about ten frames
    before = pictures_in_memory()
    gc.disable()  # in a run with many objects collections are rare
    try:
        with stream_servers.listener(stream_servers.sending(short)) as port:
            address = f"tcp://127.0.0.1:{port}"
            with PendingSource(address, build(RunConfig, table), StopRequest()).wait() as source:
                while source.reconnects < 8:
                    next(source)
                # threads that are still closing their source may hold some
                assert pictures_in_memory() - before <= 4
    finally:
        gc.enable()


def pictures_in_memory():
    return sum(type(thing) is av.VideoFrame for thing in gc.get_objects())


# Corrupted bytes


def corrupt(data, seed):
    """Returns a copy with up to 20 changed bytes."""
    chance, corrupted = random.Random(seed), bytearray(data)
    for _ in range(chance.randint(1, 20)):
        corrupted[chance.randrange(len(corrupted))] ^= chance.randrange(1, 256)
    return bytes(corrupted)


@pytest.mark.parametrize("name", ["a.mp4", "a.ts"])
def test_corrupted_bytes_only_lose_frames(tmp_path, name):
    whole = write_video(tmp_path / name, grey_frames(6, 32, 48), options={"g": "3"}).read_bytes()
    path, outcomes = tmp_path / f"corrupted_{name}", {"whole": 0, "fewer": 0, "lost": 0, "refused": 0}
    for seed in range(FLIP_SEEDS):
        path.write_bytes(corrupt(whole, seed))
        with interrupted(FLIP_SECONDS):
            try:
                with open_source(path) as source:
                    given = len(list(source))
                outcomes["whole" if given == 6 else "fewer"] += 1
            except SourceLost:
                outcomes["lost"] += 1
            except SourceError:
                outcomes["refused"] += 1
    assert sum(outcomes.values()) == FLIP_SEEDS
    assert outcomes["whole"]
    assert outcomes["whole"] < FLIP_SEEDS


# The clock of the machine


class SetClock:
    """A system clock that alternates between a day behind and a day ahead on each reading."""

    def __init__(self):
        self.readings = 0

    def time(self, now=time.time):
        self.readings += 1
        return now() + (-DAY if self.readings % 2 else DAY)

    def now(self, zone=UTC):
        return datetime.fromtimestamp(self.time(), zone)


def test_changes_of_the_system_clock_do_not_affect_a_run(process, monkeypatch):
    clock, pictures = SetClock(), grey_frames(12, 64, 64)

    def serve(connection):
        for picture in pictures:
            connection.sendall(picture.tobytes())
            time.sleep(0.03)
        connection.shutdown(socket.SHUT_RDWR)

    monkeypatch.setattr(time, "time", clock.time)
    monkeypatch.setattr(run_json, "datetime", clock)
    source = {"format": "raw", "size": "64x64", "dtype": "uint8", "timeout": 20.0}
    live = {"on_full": "wait", "reconnect": "none"}
    began = time.monotonic()
    with stream_servers.listener(serve) as port:
        folder = process(f"tcp://127.0.0.1:{port}", sections={"source": source, "live": live})
    took = time.monotonic() - began
    facts = report(folder)
    assert clock.readings
    started = datetime.fromisoformat(facts["started"])
    assert abs(abs(started - datetime.now(UTC)) - timedelta(days=1)) < timedelta(minutes=5)
    assert facts["frames"]["written"] == 12
    assert facts["gaps"] == {}
    assert 0 < facts["seconds"] <= took
    assert 0 < facts["latency_ms"]["max"] < 1e3 * took
    assert all(0 <= spent < 1e3 * took for line in lines(folder) for spent in line["timings_ms"].values())
