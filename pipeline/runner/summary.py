"""What became of several sources that were processed together: the closing table and the exit code."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.runner.run_record import RunRecord
from pipeline.system.errors import SourceError, describe


class Summary:
    """The accounts of all sources of a run, by their names."""

    def __init__(self):
        self.outcomes: dict[str, RunRecord] = {}
        """Of the sources that were opened."""
        self.unopened: dict[str, SourceError] = {}
        """Why the others were not."""
        self.seconds = 0.0
        """From the first frame to the last file closed."""

    @contextmanager
    def timed(self) -> Iterator[None]:
        """The block in which the sources are processed."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds = time.monotonic() - started

    @property
    def announced(self) -> int | None:
        """Frames that all sources are to give; None where one does not know."""
        counts = [outcome.source.info.frame_count for outcome in self.outcomes.values()]
        return None if None in counts else sum(counts)

    @property
    def failures(self) -> list[BaseException]:
        """What ended sources early or kept them from being opened."""
        ended = [outcome.failure for outcome in self.outcomes.values() if outcome.failure]
        return [*self.unopened.values(), *ended]

    @property
    def exit_code(self) -> int:
        """The worst, that is the highest, of all sources."""
        codes = [error.exit_code for error in self.unopened.values()]
        return max([0, *codes, *(outcome.exit_code for outcome in self.outcomes.values())])

    def complaints(self) -> list[str]:
        """What went wrong, a line for each reason; one that several sources share is told once."""
        return list(dict.fromkeys(map(describe, self.failures)))

    def remark(self) -> str:
        """For the progress line: how many of the sources have not ended."""
        going = sum(not outcome.ended for outcome in self.outcomes.values())
        return f"{going} of {len(self.outcomes) + len(self.unopened)} streams"

    def table(self) -> str:
        """The closing summary for people: a line for each source and one for all of them."""
        scored = any(outcome.report for outcome in self.outcomes.values())
        heads = ["stream", "frames", "detections", "tracks", "frames/s", *(["AP50"] * scored), "state"]
        rows = [self._row(name, outcome, scored) for name, outcome in self.outcomes.items()]
        rows += [[name, *["-"] * (len(heads) - 2), "not opened"] for name in self.unopened]
        frames = sum(outcome.written for outcome in self.outcomes.values())
        widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
        lines = []
        for cells in (heads, *rows):
            first, *middle, last = (
                cell.ljust(width) if place in (0, len(heads) - 1) else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
            )
            lines.append("  ".join([first, *middle, last]).rstrip())
        rate = frames / max(self.seconds, 1e-9)
        lines += ["", f"together  {frames} frames in {self.seconds:.1f} s, {rate:.1f} frames/s"]
        folders = dict.fromkeys(str(outcome.folder.parent) for outcome in self.outcomes.values())
        lines += [f"outputs   {folder}: a folder for each stream" for folder in folders]
        return "\n".join(lines)

    def _row(self, name: str, outcome: RunRecord, scored: bool) -> list[str]:
        rate = outcome.written / max(outcome.seconds, 1e-9)
        cells = [name, outcome.written, outcome.detections, outcome.tracks, f"{rate:.1f}"]
        if scored:
            cells.append(f"{outcome.report.scores.ap50:.3f}" if outcome.report else "-")
        return [*map(str, cells), outcome.state]
