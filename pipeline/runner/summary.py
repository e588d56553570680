"""Closing tables of a run over one source and of a run over several."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pipeline.evaluation.detection.tables import format_number
from pipeline.runner.run_record import RunRecord
from pipeline.sinks.file_names import OUTPUTS
from pipeline.system.errors import MoteError, describe
from pipeline.system.progress import format_rate
from pipeline.system.redaction import redact
from pipeline.system.terminal import printable

if TYPE_CHECKING:
    from pipeline.alarms.delivery import Deliveries
    from pipeline.sources.pending import PendingSource


_GATES = {"iou": "IoU {} or more", "centre": "centres within {} px"}
"""How a track and a target are matched, by the name of the gate."""


def run_table(record: RunRecord) -> str:
    """Returns the closing table of a run: two aligned columns."""
    info = record.source.info
    written = [name for name in OUTPUTS if (record.folder / name).exists()]
    detector = record.header["detector"]
    rows = [
        ("source", f"{info.name}, {info.width}x{info.height}, {float(info.rate):g} frames/s"),
        ("detector", f"{detector['weights']} on {detector['device']}"),
        *_segmenter_rows(record),
        ("frames", _frames(record)),
        *_live_rows(record),
        ("detections", _detections(record)),
        ("tracks", _tracks(record)),
        *([("events", _events(record))] if record.events else []),
        ("speed", _speed(max(record.written - record.resumed_after, 0), record.seconds)),
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


def _frames(record: RunRecord) -> str:
    """Number of frames; of corrupt ones only if it is known, as it is not of a run that was tracked again."""
    frames = f"{record.decoded} decoded, {record.written} written"
    return frames if record.source.corrupt is None else f"{frames}, {record.source.corrupt} corrupt"


def _detections(record: RunRecord) -> str:
    """Number of detections of the score from which they are drawn, and of those that are written."""
    per_frame = record.drawn / max(record.written, 1)
    drawn = f"{record.drawn} with score {record.drawn_from:g} or more, {per_frame:.1f} per frame"
    return f"{drawn}; written are {record.detections} with {record.config.detector.conf:g} or more"


def _tracks(record: RunRecord) -> str:
    """Number of tracks, and the highest score if there is none although there are detections."""
    text = f"{record.tracks} confirmed"
    if record.tracks or not record.detections or record.config.tracker.name == "none":
        return text
    text += f"; the highest score of a detection is {record.best_score:.2f}"
    start = record.config.tracker.options.get("high_score")
    if not isinstance(start, int | float) or record.best_score >= start:
        return text
    return f"{text}, tracks start at {start:g} (--set tracker.options.high_score=SCORE)"


def _events(record: RunRecord) -> str:
    """Number of events, and of those of each rule that had some."""
    counts = [f"{name} {count}" for name, count in record.events.items() if count]
    return ": ".join([str(sum(record.events.values())), *([", ".join(counts)] if counts else [])])


def _speed(count: int, seconds: float) -> str:
    """Frames per second of the frames that were computed, and how long that took."""
    rate = f"{format_rate(count / max(seconds, 1e-9))} frames/s" if count else "no frame computed"
    return f"{rate} in {seconds:.1f} s"


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
    """Dropped and skipped frames, gaps and latency, as far as there are any."""
    rows = []
    if record.dropped.count:
        rows.append(("dropped", f"{record.dropped.count} frames, since the queue was full"))
    if record.limit.skipped.count:
        rows.append(("skipped", f"{record.limit.skipped.count} frames, because of --max-rate"))
    if record.gaps and record.gaps.events:
        rows.append(("gaps", ", ".join(f"{n} {event}" for event, n in record.gaps.events.items())))
    if record.latency.count:
        times = record.latency.summary()
        rows.append(("latency", f"{times['p50']:.1f} ms, 95 % below {times['p95']:.1f} ms"))
    return rows


def _counted(count: int, one: str, many: str) -> str:
    """Returns a number with its noun."""
    return f"{count} {one if count == 1 else many}"


def _score_rows(record: RunRecord) -> list[tuple[str, str]]:
    """Metrics against the ground truth, if it was given."""
    rows = []
    if record.not_annotated:
        rows.append(("not annotated", f"{record.not_annotated} frames, left out of detections.json"))
    if record.report:
        scores = record.report.scores
        if not scores.targets:
            rows.append(("AP50", f"not defined: no targets in {scores.frames} frames"))
        else:
            rows.append(("AP50", f"{scores.ap50:.3f} over {scores.frames} frames (AP {scores.ap:.3f})"))
            best = f"{scores.best_f1:.3f} at score {scores.best_threshold:.2f}"
            rows.append(("best F1", f"{best}, with IoU 0.5 or more"))
        point = record.report.criteria["iou_0.5"].at_threshold
        conf = record.config.detector.conf
        alarms = f"{point.false_alarms_per_frame:.3g} false alarms per frame at score {conf:g}"
        rows.append(("recall", f"{format_number(point.recall)} with {alarms}, with IoU 0.5 or more"))
    if record.tracks_unscored:
        rows.append(("MOTA", f"not scored: {record.tracks_unscored}"))
    for gate, tracks in record.track_scores.items():
        if tracks.boxes:
            mota, idf1 = format_number(tracks.mota), format_number(tracks.idf1)
            hota = "" if tracks.hota is None else f"HOTA {tracks.hota:.3f}, "  # needs a package of its own
            matched = _GATES[gate].format(f"{tracks.limit:g}")
            counts = f"{_counted(tracks.switches, 'switch', 'switches')}, "
            counts += _counted(tracks.false_tracks, "false track", "false tracks")
            rows.append(("MOTA", f"{mota}, IDF1 {idf1}, {hota}{counts}, with {matched}"))
    return rows


class Summary:
    """The records of all sources of a run, by their names."""

    def __init__(self) -> None:
        self.records: dict[str, RunRecord] = {}
        """Records of the sources that were opened."""
        self.pending: dict[str, PendingSource] = {}
        """All sources by their names, from before they are open."""
        self.alarms: Deliveries | None = None
        """What delivers the alarms of all sources; None if there are no receivers."""
        self.unopened: dict[str, MoteError] = {}
        """Errors of the sources that could not be opened, or not be joined to the run."""
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
    def starting(self) -> dict[str, PendingSource]:
        """Sources that are not yet open, or whose run has not begun."""
        known = {**self.records, **self.unopened}
        return {name: pending for name, pending in self.pending.items() if name not in known}

    @property
    def announced(self) -> int | None:
        """Number of frames that all sources will give; None if one does not know or is not yet open."""
        if self.starting:
            return None
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
        starting = len(self.starting)
        return f"{running + starting} of {len(self.records) + len(self.unopened) + starting} streams"

    def table(self) -> str:
        """Returns the closing table: a line for each source and one for all of them."""
        scored = any(record.report for record in self.records.values())
        told = any(record.events for record in self.records.values())
        events = ["events"] * told
        scores = ["AP50"] * scored
        heads = ["stream", "frames", "detections", "tracks", *events, "frames/s", *scores, "state"]
        drawn_from = {f"{record.drawn_from:g}" for record in self.records.values()}
        rows = [self._row(name, record, scored=scored, told=told) for name, record in self.records.items()]
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
        lines += ["", f"together  {frames} frames, {_speed(frames, self.seconds)}"]
        lines += [f"counted   detections with score {score} or more" for score in drawn_from]
        folders = dict.fromkeys(str(record.folder.parent) for record in self.records.values())
        lines += [f"outputs   {printable(folder)}: a folder for each stream" for folder in folders]
        return "\n".join(lines)

    def _row(self, name: str, record: RunRecord, *, scored: bool, told: bool) -> list[str]:
        rate = format_rate(record.written / max(record.seconds, 1e-9)) if record.written else "-"
        cells = [printable(name), record.written, record.drawn, record.tracks]
        cells += [sum(record.events.values())] * told + [rate]
        if scored:
            cells.append(_ap50_cell(record))
        return [*map(str, cells), record.state]


def _ap50_cell(record: RunRecord) -> str:
    """Returns the AP50 of one of several sources, or why it has none."""
    if record.report is None:
        return "-" if record.header["annotations"] else "not annotated"
    return f"{record.report.scores.ap50:.3f}" if record.report.scores.targets else "no targets"
