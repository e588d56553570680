"""An interrupted run ends soon, says so in one line, and leaves valid files of all completed frames."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import av
import numpy as np
import pytest

from detectors.inference import streaming
from pipeline.runner import single
from pipeline.sinks.jsonl import JsonlSink
from pipeline.system.errors import Interrupted, OutputError, SourceLost, describe
from tests.conftest import PROJECT_ROOT
from tests.support.outputs import cache_option, check_consistent, report

pytestmark = pytest.mark.usefixtures("whole")
"""That run exports the graph for 64x64 pixels, which is reported once on standard error."""

FRAMES = 1500
"""More than can be processed before the signal arrives."""

REASON = "interrupted by {}; what was done until then is kept"
BOTH = pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"]
)


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    picture = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"preset": "ultrafast"})
        stream.width = stream.height = 64
        for index in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(np.roll(picture, index, axis=1), format="gray")
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.fixture
def running(tmp_path, long_clip, nano_weights):
    """A separate process of the command line, after its first ten frames, and its output folder."""
    out = tmp_path / "out"
    command = [sys.executable, "run_pipeline.py", "--progress", "off", "--output", str(out)]
    command += ["--video", str(long_clip), "--weights", nano_weights]
    command += cache_option()
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=PROJECT_ROOT, text=True, **pipes) as process:
        try:
            wait_for_lines(process, out / "results.jsonl", 10)
            yield process, out
        finally:
            process.kill()


def wait_for_lines(process, path, count):
    for _ in range(1200):
        if path.exists() and path.read_bytes().count(b"\n") >= count:
            return
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    pytest.fail(f"{path.name} did not reach {count} lines in a minute")


@BOTH
def test_an_interrupted_run_keeps_all_completed_frames(running, number, code):
    process, out = running
    sent = time.monotonic()
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - sent < 20  # less than one on an idle machine
    assert process.returncode == code
    assert err == f"error: {REASON.format(signal.Signals(number).name)}\n"
    assert 10 <= check_consistent(out) < FRAMES
    assert report(out)["state"] == "partial"
    assert report(out)["reason"] == REASON.format(signal.Signals(number).name)


def test_a_killed_run_leaves_readable_lines(running):
    process, out = running
    process.kill()
    process.wait()
    assert (out / "results.jsonl").read_text().endswith("}\n")
    assert (out / "detections.json.part").read_text().endswith("\n]\n")
    assert report(out)["state"] == "running"


@BOTH
def test_a_signal_before_the_first_frame_is_reported_as_an_interruption(
    mote, monkeypatch, tmp_path, clip, nano_weights, number, code
):
    load = single.load_networks

    def interrupted(*arguments, **options):
        os.kill(os.getpid(), number)
        return load(*arguments, **options)

    monkeypatch.setattr(single, "load_networks", interrupted)
    out = tmp_path / "out"
    reply = mote("--video", clip, "--weights", nano_weights, "--output", out, "--progress", "off")
    assert reply.code == code
    assert reply.err == f"error: {REASON.format(signal.Signals(number).name)}\n"
    assert check_consistent(out) == 0
    assert report(out)["state"] == "partial"


def test_an_interrupt_before_the_run_prints_one_line(mote, monkeypatch, clip):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(single, "run", interrupted)
    reply = mote("--video", clip)
    assert (reply.code, reply.err) == (130, "error: interrupted by SIGINT\n")


def test_only_the_first_signal_counts():
    with single.stop_on_signals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted, match="SIGINT"):
            stop.check()


def test_a_background_job_is_interrupted_too():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell starts it
    try:
        with single.stop_on_signals() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            with pytest.raises(Interrupted):
                stop.check()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_signal_handlers_are_restored():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with single.stop_on_signals():
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] != before
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_run_in_another_thread_installs_no_signal_handlers():
    before = signal.getsignal(signal.SIGINT)
    during = []

    def work():
        with single.stop_on_signals() as stop:
            stop.check()
            during.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert during == [before]


def test_frames_computed_before_the_signal_are_written(process, tmp_path, clip, monkeypatch):
    computed = []
    decode = streaming.decode

    def counting(raw, **options):
        computed.append(len(raw))
        if len(computed) == 6:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.3)  # until the main thread has received the signal, with results queued
        return decode(raw, **options)

    monkeypatch.setattr(streaming, "decode", counting)
    write = JsonlSink.write
    monkeypatch.setattr(JsonlSink, "write", lambda self, result: (time.sleep(0.05), write(self, result)))
    with pytest.raises(Interrupted):
        process(clip)
    assert check_consistent(tmp_path / "out") == sum(computed) < 16


def test_failures_of_a_sink_and_of_the_source_are_both_reported(process, tmp_path, clip, monkeypatch):
    def lost(source, record, stop):
        yield from list(source)[:4]
        raise SourceLost("the source is lost")

    def full(self, result):
        time.sleep(0.5)  # until the source has failed
        raise OutputError("the disk is full")

    monkeypatch.setattr(single, "count_frames", lost)
    monkeypatch.setattr(JsonlSink, "write", full)
    with pytest.raises(OutputError) as caught:
        process(clip)
    assert describe(caught.value) == "the disk is full; then: the source is lost"
    assert report(tmp_path / "out")["reason"] == describe(caught.value)
