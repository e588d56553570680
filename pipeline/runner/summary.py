"""Closing tables of a run over one source and of a run over several."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.evaluation.detection.tables import format_number
from pipeline.runner.run_record import RunRecord
from pipeline.sinks.file_names import OUTPUTS
from pipeline.system.errors import SourceError, describe
from pipeline.system.redaction import redact
from pipeline.system.terminal import printable


def run_table(record: RunRecord) -> str:
    """Returns the closing table of a run: two aligned columns."""
    info, conf = record.source.info, record.config.detector.conf
    written = [name for name in OUTPUTS if (record.folder / name).exists()]
    detector = record.header["detector"]
    per_frame = record.detections / max(record.written, 1)
    computed = max(record.written - record.resumed_after, 0)
    rows = [
        ("source", f"{info.name}, {info.width}x{info.height}, {float(info.rate):g} frames/s"),
        ("detector", f"{detector['weights']} on {detector['device']}"),
        *_segmenter_rows(record),
        ("frames", f"{record.decoded} decoded, {record.written} written, {record.source.corrupt} corrupt"),
        *_live_rows(record),
        ("detections", f"{record.detections} with score {conf:g} or more, {per_frame:.1f} per frame"),
        ("tracks", f"{record.tracks} confirmed"),
        ("speed", f"{computed / max(record.seconds, 1e-9):.1f} frames/s in {record.seconds:.1f} s"),
    ]
    if record.resumed_after:
        rows.append(("resumed", f"after {record.resumed_after} frames, which were not computed again"))
    for name in ("detect", "write"):
        if name in record.stages:
            times = record.stages[name].summary()
            rows.append((f"  {name}", f"{times['p50']:.1f} ms per frame, 95 % below {times['p95']:.1f} ms"))
    rows += _score_rows(record)
    if record.rotated:
        rows.append(
            ("rotated", "{kept} kept, {deleted} deleted for the disk budget".format(**record.rotated))
        )
    rows += [("outputs", f"{record.folder}: {', '.join(written)}"), ("state", record.state)]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {printable(value)}" for name, value in rows)


def _segmenter_rows(record: RunRecord) -> list[tuple[str, str]]:
    """Each segmenter, its weights, and the time that it adds to a frame."""
    rows = []
    for segmenter in record.header["segmenters"]:
        cost = record.segmenter_cost(segmenter["name"])
        text = f"{segmenter['name']} with {segmenter['weights']}"
        if cost["overhead"] is not None:
            overhead = f"{100 * cost['overhead']:+.0f} % of the time of detector and tracker"
            text += f": {cost['ms_per_frame']:.1f} ms per frame, {overhead}"
        rows.append(("segmenter", text))
    return rows


def _live_rows(record: RunRecord) -> list[tuple[str, str]]:
    """Dropped frames, gaps and latency, as far as there are any."""
    rows = []
    if record.dropped.count:
        rows.append(("dropped", f"{record.dropped.count} frames, since the queue was full"))
    if record.gaps and record.gaps.events:
        rows.append(("gaps", ", ".join(f"{n} {event}" for event, n in record.gaps.events.items())))
    if record.latency.count:
        times = record.latency.summary()
        rows.append(("latency", f"{times['p50']:.1f} ms, 95 % below {times['p95']:.1f} ms"))
    return rows


def _score_rows(record: RunRecord) -> list[tuple[str, str]]:
    """Metrics against the ground truth, if it was given."""
    rows = []
    if record.not_annotated:
        rows.append(("not annotated", f"{record.not_annotated} frames, left out of detections.json"))
    if record.report:
        scores = record.report.scores
        rows.append(("AP50", f"{scores.ap50:.3f} over {scores.frames} frames (AP {scores.ap:.3f})"))
        rows.append(("best F1", f"{scores.best_f1:.3f} at score {scores.best_threshold:.2f}"))
        point = record.report.criteria["iou_0.5"].at_threshold
        conf = record.config.detector.conf
        alarms = f"{point.false_alarms_per_frame:.3g} false alarms per frame at score {conf:g}"
        rows.append(("recall", f"{format_number(point.recall)} with {alarms}"))
    if "iou" in record.track_scores:
        tracks = record.track_scores["iou"]
        mota, idf1 = format_number(tracks.mota), format_number(tracks.idf1)
        rows.append(("MOTA", f"{mota}, IDF1 {idf1}, {tracks.switches} switches"))
    return rows


class Summary:
    """The records of all sources of a run, by their names."""

    def __init__(self) -> None:
        self.records: dict[str, RunRecord] = {}
        """Records of the sources that were opened."""
        self.unopened: dict[str, SourceError] = {}
        """Errors of the sources that could not be opened."""
        self.seconds = 0.0
        """Duration from the first frame to the last file closed."""

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Measures the duration of the block in which the sources are processed."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds = time.monotonic() - started

    @property
    def announced(self) -> int | None:
        """Number of frames that all sources will give; None if one does not know."""
        counts = [record.source.info.frame_count for record in self.records.values()]
        known = [count for count in counts if count is not None]
        return sum(known) if len(known) == len(counts) else None

    @property
    def failures(self) -> list[BaseException]:
        """Errors that ended sources early or kept them from being opened."""
        ended = [record.failure for record in self.records.values() if record.failure]
        return [*self.unopened.values(), *ended]

    @property
    def exit_code(self) -> int:
        """The highest exit code of all sources."""
        codes = [error.exit_code for error in self.unopened.values()]
        return max([0, *codes, *(record.exit_code for record in self.records.values())])

    def complaints(self) -> list[str]:
        """Returns one line for each distinct error."""
        return list(dict.fromkeys(redact(describe(error)) for error in self.failures))

    def progress_note(self) -> str:
        """Returns the number of sources that have not ended for the progress line."""
        running = sum(not record.ended for record in self.records.values())
        return f"{running} of {len(self.records) + len(self.unopened)} streams"

    def table(self) -> str:
        """Returns the closing table: a line for each source and one for all of them."""
        scored = any(record.report for record in self.records.values())
        heads = ["stream", "frames", "detections", "tracks", "frames/s", *(["AP50"] * scored), "state"]
        rows = [self._row(name, record, scored) for name, record in self.records.items()]
        rows += [[printable(name), *["-"] * (len(heads) - 2), "not opened"] for name in self.unopened]
        frames = sum(record.written for record in self.records.values())
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
        folders = dict.fromkeys(str(record.folder.parent) for record in self.records.values())
        lines += [f"outputs   {printable(folder)}: a folder for each stream" for folder in folders]
        return "\n".join(lines)

    def _row(self, name: str, record: RunRecord, scored: bool) -> list[str]:
        rate = record.written / max(record.seconds, 1e-9)
        cells = [printable(name), record.written, record.detections, record.tracks, f"{rate:.1f}"]
        if scored:
            cells.append(f"{record.report.scores.ap50:.3f}" if record.report else "-")
        return [*map(str, cells), record.state]
