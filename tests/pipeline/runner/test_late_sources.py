"""Several sources of which some are not there yet: the others begin, and these join when they come."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from contextlib import ExitStack, contextmanager

import pytest

from pipeline.config.parsing import build
from pipeline.config.schema import RunConfig, ServiceConfig
from pipeline.runner import multi, setup
from pipeline.runner.health import health
from pipeline.runner.multi import run_many
from pipeline.runner.single import run
from pipeline.runner.summary import Summary
from pipeline.sinks.jsonl import JsonlSink
from pipeline.system.errors import OutputError
from run_pipeline import parts
from tests.support import stream_servers
from tests.support.bright_segmenter import add_segmenters, picture, save_bright
from tests.support.outputs import check_consistent, lines, report

SECONDS = 20.0
FRAMES = 12
RAW = {"format": "raw", "size": "64x64", "dtype": "uint8", "max_frames": FRAMES, "timeout": SECONDS}
QUICK = {"on_full": "wait", "reconnect": 2, "backoff": 0.02, "backoff_cap": 0.05}
PATIENT = {**QUICK, "reconnect": "forever"}


def raw(shift: int) -> bytes:
    """Returns raw pictures with a white spot that moves to the right."""
    shown = [picture((shift + index, 12, shift + 4 + index, 15, 0.9)) for index in range(FRAMES)]
    return b"".join(image.tobytes() for image in shown)


def serving(connection: socket.socket) -> None:
    """Sends the pictures and waits for the client to go."""
    connection.sendall(raw(20))
    stream_servers.silence(connection)


@pytest.fixture
def good(tmp_path):
    """A file that is always there."""
    path = tmp_path / "good.bin"
    path.write_bytes(raw(10))
    return str(path)


@pytest.fixture
def table(monkeypatch, tmp_path):
    """Sections of a configuration with a fast detector."""
    add_segmenters(monkeypatch, "bright")
    detector = {"name": "bright", "weights": str(save_bright(tmp_path / "bright.safetensors"))}
    return {"detector": detector, "source": RAW, "live": QUICK, "output": {"folder": str(tmp_path / "out")}}


def together(table, *locations):
    return run_many(locations, build(RunConfig, table), parts(), progress="off")


@contextmanager
def seen_at_each_line(monkeypatch, look):
    """Calls `look` with the name of a source after each line that is written for it."""
    write = JsonlSink.write

    def looking(self, result):
        write(self, result)
        look(self.path.parent.name, result)

    monkeypatch.setattr(JsonlSink, "write", looking)
    yield


def address(port: int) -> str:
    return f"tcp://127.0.0.1:{port}"


def untimed(folder):
    """Returns the outputs of a run without timings."""
    records = [{k: v for k, v in record.items() if k != "timings_ms"} for record in lines(folder)]
    return records, [(folder / name).read_bytes() for name in ("detections.json", "tracks.txt")]


def test_a_source_that_never_comes_ends_as_a_lost_one_and_the_others_complete(table, good, tmp_path, caplog):
    port = stream_servers.free_port()
    summary = together(table, address(port), good)
    (complaint,) = summary.complaints()
    assert summary.exit_code == 3
    assert complaint.startswith(f"{address(port)} cannot be opened: Connection refused")
    assert complaint.endswith("; 2 more attempts failed, too")
    assert [record.getMessage().rpartition(";")[2][:17] for record in caplog.records] == [
        " connecting again"
    ] * 2
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good"]
    assert report(tmp_path / "out" / "good")["state"] == "complete"
    assert "not opened" in summary.table()


@pytest.mark.parametrize("first", [True, False])
def test_a_source_that_comes_later_joins_with_the_results_of_a_separate_run(
    table, good, tmp_path, monkeypatch, first
):
    port, begun = stream_servers.free_port(), threading.Event()
    with stream_servers.listener(serving) as camera:
        alone = {**table, "output": {"folder": str(tmp_path / "alone")}}
        run(address(camera), build(RunConfig, alone), parts(), progress="off")
    with ExitStack() as stack:

        def look(name, result):
            if name == "good" and result.frame.index == 2:
                stack.enter_context(stream_servers.listener(serving, port))
                begun.set()

        stack.enter_context(seen_at_each_line(monkeypatch, look))
        places = [address(port), good] if first else [good, address(port)]
        summary = together({**table, "live": PATIENT}, *places)
    assert begun.is_set()
    assert summary.failures == []
    name = f"127.0.0.1-{port}"
    assert [check_consistent(tmp_path / "out" / n) for n in ("good", name)] == [FRAMES, FRAMES]
    records, files = untimed(tmp_path / "out" / name)
    expected, expected_files = untimed(tmp_path / "alone")
    assert files == expected_files
    assert records == expected


def test_silent_addresses_hold_up_nothing_and_are_reported_as_starting(table, good, tmp_path, monkeypatch):
    answers, summary, over = [], Summary(), threading.Event()

    def silent(connection):
        over.wait(SECONDS)
        connection.shutdown(socket.SHUT_RDWR)

    def look(name, result):
        answers.append(health(summary, ServiceConfig()))
        if result.frame.index == FRAMES - 1:
            over.set()

    monkeypatch.setattr(multi, "Summary", lambda: summary)
    with ExitStack() as servers, seen_at_each_line(monkeypatch, look):
        ports = [servers.enter_context(stream_servers.listener(silent)) for _ in range(5)]
        began = time.monotonic()
        together({**table, "live": {**QUICK, "reconnect": "none"}}, *map(address, ports), good)
    assert time.monotonic() - began < SECONDS / 2
    assert report(tmp_path / "out" / "good")["state"] == "complete"
    assert summary.exit_code == 3
    states = {name: facts["state"] for name, facts in answers[-1]["streams"].items()}
    assert states == {**{f"127.0.0.1-{port}": "starting" for port in ports}, "good": "running"}


def test_a_source_that_does_not_answer_is_unhealthy_and_starting(table, good, monkeypatch):
    summary, port = Summary(), stream_servers.free_port()
    monkeypatch.setattr(multi, "Summary", lambda: summary)
    found = []

    def look(name, result):
        while not (answer := health(summary, ServiceConfig()))["streams"][f"127.0.0.1-{port}"].get("reason"):
            time.sleep(0.01)
        found.append(answer)

    with seen_at_each_line(monkeypatch, look):
        together(
            {**table, "live": {**QUICK, "reconnect": 30}, "source": {**RAW, "max_frames": 1}},
            good,
            address(port),
        )
    facts = found[0]["streams"][f"127.0.0.1-{port}"]
    assert (found[0]["status"], facts["state"]) == ("failing", "starting")
    assert "Connection refused" in facts["reason"]


def test_a_signal_ends_the_wait_for_a_source_and_is_reported_once(mote, table, good, tmp_path, monkeypatch):
    def look(name, result):
        if result.frame.index == FRAMES - 1:
            os.kill(os.getpid(), signal.SIGTERM)

    settings = {**{f"source.{key}": value for key, value in RAW.items()}, "live.reconnect": "forever"}
    options = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    options += ["--detector", "bright", "--weights", table["detector"]["weights"], "--progress", "off"]
    with stream_servers.listener(stream_servers.silence) as port, seen_at_each_line(monkeypatch, look):
        sources = ("--video", good, "--video", address(port))
        reply = mote(*sources, *options, "--output", tmp_path / "out")
    assert reply.code == 143
    assert reply.err == "error: interrupted by SIGTERM; what was done until then is kept\n"
    assert check_consistent(tmp_path / "out" / "good") == FRAMES
    assert "not opened" in reply.out


def test_a_folder_in_use_is_found_before_the_run_begins(table, good, tmp_path):
    port = stream_servers.free_port()
    earlier = tmp_path / "out" / f"127.0.0.1-{port}"
    earlier.mkdir(parents=True)
    (earlier / "tracks.txt").write_text("precious")
    with pytest.raises(OutputError, match="--overwrite"):
        together({**table, "live": PATIENT}, good, address(port))
    assert (earlier / "tracks.txt").read_text() == "precious"
    assert not (tmp_path / "out" / "good" / "results.jsonl").exists()


def test_weights_with_nan_end_the_wait_for_other_sources(table, good, tmp_path, caplog):
    weights = save_bright(tmp_path / "nan.safetensors", weight=float("nan"))
    table = {**table, "detector": {"name": "bright", "weights": str(weights)}, "live": PATIENT}
    with stream_servers.listener(stream_servers.silence) as port:
        summary = together(table, good, address(port))
    assert summary.exit_code == 4
    assert len(summary.complaints()) == 1
    assert "left behind" not in caplog.text


def late_source_whose_stream_fails(table, good, monkeypatch, error):
    """Runs `good` and a later source, for which `make_stream` raises an error; returns the summary."""
    make, port = setup.make_stream, stream_servers.free_port()

    def failing(name, *arguments, **options):
        if name != "good":
            raise error
        return make(name, *arguments, **options)

    monkeypatch.setattr(setup, "make_stream", failing)
    with ExitStack() as stack:

        def look(name, result):
            if result.frame.index == 2:
                stack.enter_context(stream_servers.listener(serving, port))

        stack.enter_context(seen_at_each_line(monkeypatch, look))
        return together({**table, "live": PATIENT}, good, address(port))


def test_a_late_source_that_cannot_join_ends_alone(table, good, tmp_path, monkeypatch):
    summary = late_source_whose_stream_fails(table, good, monkeypatch, OutputError("no room"))
    assert (summary.exit_code, summary.complaints()) == (5, ["no room"])
    assert check_consistent(tmp_path / "out" / "good") == FRAMES


def test_a_bug_when_a_late_source_joins_is_raised_and_keeps_all_files(table, good, tmp_path, monkeypatch):
    with pytest.raises(RuntimeError, match="a bug"):
        late_source_whose_stream_fails(table, good, monkeypatch, RuntimeError("a bug"))
    assert check_consistent(tmp_path / "out" / "good") == FRAMES


def test_sources_that_are_all_away_are_waited_for(table, tmp_path):
    ports, timers = [stream_servers.free_port() for _ in range(2)], ExitStack()
    starts = [
        threading.Timer(0.3, lambda p=p: timers.enter_context(stream_servers.listener(serving, p)))
        for p in ports
    ]
    with timers:
        for timer in starts:
            timer.start()
        summary = together({**table, "live": PATIENT}, *map(address, ports))
    assert summary.failures == []
    assert [record.written for record in summary.records.values()] == [FRAMES, FRAMES]
