"""The logs of a training run agree in every format and omit steps that were lost."""

from __future__ import annotations

import csv
import io
import struct

import cv2
import google_crc32c
import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from detectors.training.logs import console, tensorboard
from detectors.training.logs.console import Console
from detectors.training.logs.learning_curves import moving_average, plot_learning_curves
from detectors.training.logs.run_log import open_run_log
from detectors.training.logs.tensorboard import EventFile

TERMS, SCORES = ("loss", "ciou"), ("ap50", "best_f1")


def step(number):
    return {
        "step": number,
        "time": 100.0 + number,
        "loss": 2.0 / number,
        "ciou": 0.5,
        "norm": 3.0,
        "rate": 0.1,
    }


def measured(number):
    return {"step": number, "time": 100.0 + number, "val": {"ap50": 0.25, "best_f1": 0.5, "frames": 7}}


def write(folder, rows, *, after=0):
    with open_run_log(folder, step=after, terms=TERMS, scores=SCORES) as log:
        for row in rows:
            log.write(row)


def table(folder):
    return list(csv.DictReader((folder / "log.csv").open(newline="")))


def masked_crc(data):
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def scalars(folder):
    """Returns all (step, name, value) of the only event file and verifies every checksum."""
    (path,) = folder.glob("events.out.tfevents.*")
    data, found = path.read_bytes(), []
    while data:
        length, check = struct.unpack("<QI", data[:12])
        message, (end,) = data[12 : 12 + length], struct.unpack("<I", data[12 + length : 16 + length])
        assert (check, end) == (masked_crc(data[:8]), masked_crc(message))
        data = data[16 + length :]
        event = Event.FromString(message)
        found += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
    return found


def test_every_format_has_every_step_and_validation(tmp_path):
    write(tmp_path, [step(1), step(2), measured(2)])
    rows = table(tmp_path)
    assert [row["step"] for row in rows] == ["1", "2", "2"]
    assert [row["loss"] for row in rows] == ["2.0", "1.0", ""]
    assert [row["val_ap50"] for row in rows] == ["", "", "0.25"]
    assert (2, "train/loss", 1.0) in scalars(tmp_path)
    assert [found for found in scalars(tmp_path) if found[1] == "val/ap50"] == [(2, "val/ap50", 0.25)]


def test_lost_steps_are_removed_from_every_format(tmp_path):
    write(tmp_path, [step(1), step(2), measured(2), step(3)])
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"step": 4, "lo')
    write(tmp_path, [step(3)], after=2)
    assert [row["step"] for row in table(tmp_path)] == ["1", "2", "2", "3"]
    assert [number for number, name, _ in scalars(tmp_path) if name == "train/loss"] == [1, 2, 3]
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 4


def test_a_resumed_log_knows_its_validations(tmp_path):
    write(tmp_path, [step(1), measured(1), step(2)])
    with open_run_log(tmp_path, step=2, terms=TERMS, scores=SCORES) as log:
        assert log.has_validation(1)
        assert not log.has_validation(2)


def test_an_event_is_to_the_byte_the_one_of_tensorboard(tmp_path):
    file = EventFile(tmp_path / "events", time=0.0)
    file.add(300, {"loss": 0.75}, time=12.5)
    file.close()
    expected = "1b000000000000001a0d9e1309000000000000294010ac022a0d0a0b0a046c6f7373150000403f3fc7686e"
    header, data = b"\x1a\x0dbrain.Event:2", (tmp_path / "events").read_bytes()
    assert data[12 : 12 + len(header)] == header
    assert data[16 + len(header) :].hex() == expected


def test_events_are_flushed_during_the_run_but_not_after_every_step(tmp_path, monkeypatch):
    now = 0.0
    monkeypatch.setattr(tensorboard.clock, "monotonic", lambda: now)
    with open_run_log(tmp_path, step=0, terms=TERMS, scores=SCORES) as log:
        log.write(step(1))
        (path,) = tmp_path.glob("events.out.tfevents.*")
        assert path.stat().st_size == 0
        now = tensorboard.FLUSH_SECONDS
        log.write(step(2))
        assert [number for number, name, _ in scalars(tmp_path) if name == "train/loss"] == [1, 2]


# Curves


@pytest.mark.parametrize(
    "rows",
    [
        [step(n) for n in range(1, 200)] + [measured(100), measured(199)],
        [step(1)],
        [{**step(1), "loss": 0.0, "ciou": 0.0}],
        [measured(1)],
        [],
    ],
    ids=["many steps", "one step", "a loss of 0", "no step", "nothing"],
)
def test_curves_are_plotted_for_any_kind_of_rows(tmp_path, rows):
    plot_learning_curves(rows, tmp_path / "curves.png", terms=TERMS)
    assert cv2.imread(str(tmp_path / "curves.png")).std() > 5


@pytest.mark.parametrize(
    ("reach", "expected"), [(0, [1, 2, 3, 10]), (1, [1.5, 2, 5, 6.5]), (9, [4, 4, 4, 4])], ids=str
)
def test_a_moving_average_is_the_mean_of_neighbours(reach, expected):
    assert moving_average(np.array([1.0, 2, 3, 10]), reach).tolist() == expected


# Console


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_on_a_terminal_there_is_a_bar_and_lines_are_printed_above_it(monkeypatch, capsys):
    screen = Terminal()
    monkeypatch.setattr(console.sys, "stderr", screen)
    with Console(4, done=1, every=1) as shown:
        for number in (2, 3):
            shown.step(number, {"loss": 0.5})
        shown.print("step 3: measured")
    assert "3/4" in screen.getvalue()
    assert "loss=0.500" in screen.getvalue()
    assert capsys.readouterr().out == "step 3: measured\n"


@pytest.mark.parametrize(("every", "steps"), [(2, [2, 4, 5]), (10, [5])])
def test_without_a_terminal_every_nth_step_and_the_last_one_print_a_line(capsys, every, steps):
    with Console(5, done=0, every=every) as shown:
        for number in range(1, 6):
            shown.step(number, {"loss": 0.5})
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == [f"step {number}/5" for number in steps]
    assert all("loss 0.500" in line and line.endswith(" left") for line in lines)


def test_other_processes_than_the_first_print_nothing(capsys):
    with Console(2, done=0, every=1, shown=False) as quiet:
        quiet.step(1, {"loss": 0.5})
        quiet.print("news")
    assert capsys.readouterr() == ("", "")
