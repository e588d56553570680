"""What a training run tells of itself: log.jsonl, and made from it log.csv, TensorBoard events and curves.

log.jsonl has one line for each step, {"step": n, "loss": …}, and one for each measurement,
{"step": n, "val": {…}}. It is the complete record; the other files are made anew from it whenever a run goes
on, so none of them knows steps that were lost with a process.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from detectors.training.logs.learning_curves import draw
from detectors.training.logs.tensorboard import EventFile
from pipeline.system.files import replace_on_success

EVENTS = "events.out.tfevents"


class RunLog:
    """The open logs of one run.

    `terms` are the parts of the loss, the loss itself first; `scores` are those of a measurement that the
    table has columns for.
    """

    def __init__(self, folder: Path, *, step: int, terms: tuple[str, ...], scores: tuple[str, ...]):
        self._folder, self._terms, self._scores = folder, terms, scores
        self._columns = (*terms, "norm", "rate")
        self.rows = cut(folder / "log.jsonl", step)
        for stale in folder.glob(f"{EVENTS}.*"):
            stale.unlink()
        self._lines = (folder / "log.jsonl").open("a", encoding="utf-8")
        self._table_file = (folder / "log.csv").open("w", encoding="utf-8", newline="")
        self._table = csv.writer(self._table_file)
        self._table.writerow(["step", "time", *self._columns, *(f"val_{name}" for name in scores)])
        start = self.rows[0].get("time", 0.0) if self.rows else 0.0
        self._events = EventFile(folder / f"{EVENTS}.{step:08}.mote", time=start)
        for row in self.rows:
            self._derive(row)

    def write(self, row: dict[str, Any]) -> None:
        """Append one row of `step`, `time` and either the terms or `val`; readers see it at once."""
        self.rows.append(row)
        self._lines.write(json.dumps(row) + "\n")
        self._lines.flush()
        self._derive(row)
        self._table_file.flush()
        self._events.flush()

    def _derive(self, row: Mapping[str, Any]) -> None:
        """The row in the table and among the events."""
        val = row.get("val", {})
        cells = [row.get(name, "") for name in ("step", "time", *self._columns)]
        self._table.writerow([*cells, *(val.get(name, "") for name in self._scores)])
        scalars = {f"train/{name}": row[name] for name in self._columns if name in row}
        scalars |= {f"val/{name}": value for name, value in val.items() if type(value) in (int, float)}
        self._events.add(row["step"], scalars, time=row.get("time", 0.0))

    def measured(self, step: int) -> bool:
        """Whether there is a measurement of this step."""
        return any(row["step"] == step and "val" in row for row in reversed(self.rows))

    def draw(self) -> None:
        """Draw the learning curves of all rows."""
        draw(self.rows, self._folder / "curves.png", terms=self._terms)

    def close(self) -> None:
        """Finish all files."""
        for file in (self._lines, self._table_file, self._events):
            file.close()


@contextmanager
def run_log(folder: Path, *, step: int, terms: tuple[str, ...], scores: tuple[str, ...]) -> Iterator[RunLog]:
    """The logs of the run in `folder` that goes on after `step`; closed with the block. Raises OSError."""
    log = RunLog(folder, step=step, terms=terms, scores=scores)
    try:
        yield log
    finally:
        log.close()


def cut(path: Path, step: int) -> list[dict[str, Any]]:
    """The rows up to `step`; later ones, lost with their process and to be done again, leave the file."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_bytes().splitlines():
        try:
            row = json.loads(line)
        except ValueError:  # the last line, cut off in its middle
            break
        if row["step"] <= step:
            rows.append(row)
    with replace_on_success(path) as partial:
        partial.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return rows
