"""Logs of a training run: log.jsonl, and derived from it log.csv, TensorBoard events and learning curves.

log.jsonl has one line for each step, {"step": n, "loss": …}, and one for each validation,
{"step": n, "val": {…}}. It is the complete record; the other files are rewritten from it whenever a run is
resumed, so none of them contains steps that were lost with a killed process.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from detectors.training.logs.learning_curves import plot_learning_curves
from detectors.training.logs.tensorboard import EventFile
from pipeline.system.files import replace_on_success

EVENTS = "events.out.tfevents"


class RunLog:
    """The open logs of one run, resumed after `step`; rows of later steps are removed.

    `terms` are the terms of the loss, the loss itself first; `scores` are the keys of the validation scores
    that log.csv has columns for. All methods raise OSError if a file cannot be written.
    """

    def __init__(self, folder: Path, *, step: int, terms: tuple[str, ...], scores: tuple[str, ...]):
        self._folder, self._terms, self._scores = folder, terms, scores
        self._columns = (*terms, "norm", "rate")
        self.rows = truncate_log(folder / "log.jsonl", step)
        for stale in folder.glob(f"{EVENTS}.*"):
            stale.unlink()
        self._lines = (folder / "log.jsonl").open("a", encoding="utf-8")
        self._table_file = (folder / "log.csv").open("w", encoding="utf-8", newline="")
        self._table = csv.writer(self._table_file)
        self._table.writerow(["step", "time", *self._columns, *(f"val_{name}" for name in scores)])
        start = self.rows[0].get("time", 0.0) if self.rows else 0.0
        self._events = EventFile(folder / f"{EVENTS}.{step:08}.mote", time=start)
        for row in self.rows:
            self._write_derived(row)

    def write(self, row: dict[str, Any]) -> None:
        """Appends one row of `step`, `time` and either the terms or `val`, and flushes the files."""
        self.rows.append(row)
        self._lines.write(json.dumps(row) + "\n")
        self._lines.flush()
        self._write_derived(row)
        self._table_file.flush()
        self._events.flush()

    def _write_derived(self, row: Mapping[str, Any]) -> None:
        """Appends the row to log.csv and to the events."""
        val = row.get("val", {})
        cells = [row.get(name, "") for name in ("step", "time", *self._columns)]
        self._table.writerow([*cells, *(val.get(name, "") for name in self._scores)])
        scalars = {f"train/{name}": row[name] for name in self._columns if name in row}
        scalars |= {f"val/{name}": value for name, value in val.items() if type(value) in (int, float)}
        self._events.add(row["step"], scalars, time=row.get("time", 0.0))

    def has_validation(self, step: int) -> bool:
        """Whether there is a validation of this step."""
        return any(row["step"] == step and "val" in row for row in reversed(self.rows))

    def plot(self) -> None:
        """Plots the learning curves of all rows to curves.png."""
        plot_learning_curves(self.rows, self._folder / "curves.png", terms=self._terms)

    def close(self) -> None:
        """Closes all files."""
        for file in (self._lines, self._table_file, self._events):
            file.close()


@contextmanager
def open_run_log(
    folder: Path, *, step: int, terms: tuple[str, ...], scores: tuple[str, ...]
) -> Iterator[RunLog]:
    """Opens the logs of the run in `folder`, resumed after `step`; closes them with the block.

    Raises OSError if a file cannot be read or written.
    """
    log = RunLog(folder, step=step, terms=terms, scores=scores)
    try:
        yield log
    finally:
        log.close()


def truncate_log(path: Path, step: int) -> list[dict[str, Any]]:
    """Removes the rows after `step`, which will be repeated, from a log.jsonl; returns the others.

    Raises OSError if the file cannot be read or written.
    """
    if not path.exists():
        return []
    rows = []
    for line in path.read_bytes().splitlines():
        try:
            row = json.loads(line)
        except ValueError:  # the last line, truncated when the process was killed
            break
        if row["step"] <= step:
            rows.append(row)
    with replace_on_success(path) as partial:
        partial.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return rows
