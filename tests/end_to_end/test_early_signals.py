"""A signal is heard before a source is open and while files are waited for, also that of a lost terminal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.system.errors import Interrupted
from pipeline.system.signals import defer_signals, stop_on_signals
from tests.conftest import PROJECT_ROOT
from tests.support import stream_servers
from tests.support.media import grey_frames, write_video
from tests.support.outputs import cache_option, report

SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


@contextmanager
def started(*arguments: object, stdin: int | None = None):
    """Starts the command line; yields its process once it handles signals."""
    command = [sys.executable, "run_pipeline.py", "--progress", "off", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": stdin}
    with subprocess.Popen(command, cwd=PROJECT_ROOT, text=True, **pipes) as process:
        try:
            deadline = time.monotonic() + 30
            while not handles(process.pid, signal.SIGTERM):
                assert process.poll() is None, process.stderr.read()
                assert time.monotonic() < deadline
                time.sleep(0.02)
            yield process
        finally:
            process.kill()


def handles(pid: int, number: int) -> bool:
    """Returns whether a process has installed a handler of a signal."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    caught = next(line.split()[1] for line in lines if line.startswith("SigCgt:"))
    return bool(int(caught, 16) >> (number - 1) & 1)


def end(process: subprocess.Popen, number: int) -> tuple[int, str, float]:
    """Sends a signal; returns the exit code, standard error and the seconds that the end took."""
    time.sleep(0.3)
    sent = time.monotonic()
    process.send_signal(number)
    _, err = process.communicate(timeout=20)
    return process.returncode, err, time.monotonic() - sent


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_signal_ends_the_wait_for_a_silent_standard_input(tmp_path, number):
    reading, writing = os.pipe()
    with started("-", "--timeout", 60, "--output", tmp_path / "out", stdin=reading) as process:
        code, err, seconds = end(process, number)
    os.close(reading)
    os.close(writing)
    assert (code, err) == (SIGNALS[number], f"error: interrupted by {number.name}\n")
    assert seconds < 15  # far below the timeout; the interpreter itself takes seconds to end under load
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("sources", [1, 2])
def test_a_signal_ends_the_wait_for_silent_addresses(tmp_path, sources):
    with stream_servers.listener(stream_servers.silence) as port:
        videos = [
            part for number in range(sources) for part in ("--video", f"tcp://127.0.0.1:{port}/{number}")
        ]
        with started(*videos, "--timeout", 60, "--output", tmp_path / "out") as process:
            code, err, seconds = end(process, signal.SIGTERM)
    assert (code, err) == (143, "error: interrupted by SIGTERM\n")
    assert seconds < 15  # far below the timeout; the interpreter itself takes seconds to end under load


def test_annotations_that_nobody_writes_are_not_waited_for(mote, tmp_path):
    clip = write_video(tmp_path / "a.mp4", grey_frames(3))
    os.mkfifo(tmp_path / "truth.json")
    reply = mote(clip, "--annotations", tmp_path / "truth.json", "--output", tmp_path / "out")
    assert reply.code == 2
    assert reply.err == f"error: cannot read annotations {tmp_path / 'truth.json'}: it is no regular file\n"


def test_a_lost_terminal_ends_a_run_as_sigterm_does(tmp_path, nano_weights):
    frames = grey_frames(1, 64, 64)[0].tobytes()
    reading, writing = os.pipe()
    out = tmp_path / "out"
    raw = (
        "--source-format",
        "raw",
        "--source-size",
        "64x64",
        "--source-dtype",
        "uint8",
        "--weights",
        nano_weights,
    )
    with started("-", *raw, "--output", out, *cache_option(), stdin=reading) as process:
        for _ in range(600):
            os.write(writing, frames)
            time.sleep(0.05)
            if (out / "results.jsonl").exists() and (out / "results.jsonl").read_bytes().count(b"\n") > 3:
                break
        process.send_signal(signal.SIGHUP)
        os.write(writing, frames)  # the frame that is waited for
        process.communicate(timeout=30)
    os.close(reading)
    os.close(writing)
    facts = report(out)
    assert process.returncode == 129
    assert facts["state"] == "partial"
    assert facts["reason"].startswith("interrupted by SIGHUP")
    assert facts["frames"]["written"] > 3


def test_a_program_that_nohup_started_ignores_the_end_of_its_terminal():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_on_signals() as stop, defer_signals():
            os.kill(os.getpid(), signal.SIGHUP)
        assert stop.signal is None
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_ends_the_preparation_at_once_and_the_run_after_its_frame():
    with pytest.raises(Interrupted, match="interrupted by SIGTERM"), stop_on_signals(at_once=True):
        signal.raise_signal(signal.SIGTERM)
    with stop_on_signals(at_once=True) as stop:
        stop.begin()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signal == signal.SIGTERM


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "video"])
def test_standard_input_that_falls_silent_is_lost_after_the_timeout(mote, tmp_path, nano_weights, raw):
    frames = grey_frames(4, 64, 64)
    clip = write_video(tmp_path / "a.ts", frames)
    data = b"".join(frame.tobytes() for frame in frames) if raw else clip.read_bytes()
    declared = ("--source-format", "raw", "--source-size", "64x64", "--source-dtype", "uint8") if raw else ()
    with stream_servers.standard_input(None) as writing:
        os.write(writing, data)
        out = tmp_path / "out"
        reply = mote(
            "-", *declared, "--timeout", 0.5, "--weights", nano_weights, "--output", out, *cache_option()
        )
    assert reply.code == 3
    assert "-: lost after 4 frames: no data for 0.5 s" in reply.err
    assert report(out)["frames"]["written"] == 4


def test_a_standard_input_without_any_data_cannot_be_opened(mote, tmp_path):
    with stream_servers.standard_input(None):
        reply = mote("-", "--timeout", 0.5, "--output", tmp_path / "out")
    assert (reply.code, reply.err) == (
        3,
        "error: standard input cannot be opened: no data for 0.5 s; see --timeout\n",
    )
