"""What a run says about itself: run.json, the frame accounting, stage latencies, and the closing table."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import __version__
from pipeline.config.schema import RunConfig
from pipeline.evaluation.detection.report import Report
from pipeline.evaluation.detection.tables import shown
from pipeline.runner.ground_truth import GroundTruth
from pipeline.runner.latency import Latency, RecentLatency
from pipeline.sinks.file_names import METRICS, MOT, OUTPUTS, RUN
from pipeline.sources.source import FrameSource
from pipeline.stages.gaps import DropCounter, GapMarker
from pipeline.structures.results import STAGE, Result
from pipeline.structures.tracks import TrackState
from pipeline.system.errors import MoteError, UsageError, describe
from pipeline.system.files import atomic_write, fingerprint
from pipeline.system.redaction import redact

if TYPE_CHECKING:
    from pipeline.evaluation.tracking import TrackScores

BASE_STAGES = ("detect", "suppress", "track")
"""What a frame goes through without segmenters; their overhead is a share of it."""
PACKAGES = ("torch", "numpy", "av", "opencv-python", "scipy", "pycocotools")


class RecoveredRun(MoteError):
    """The process ended without a word: what the outputs tell was rebuilt from results.jsonl."""


class RunRecord:
    """The account of one run, kept as it goes and written to run.json at its start and its end."""

    def __init__(
        self,
        folder: Path,
        source: FrameSource,
        config: RunConfig,
        detector: dict,
        segmenters: Sequence[dict] = (),
    ):
        self.folder, self.source, self.config, self.detector = folder, source, config, detector
        self.segmenters = list(segmenters)
        """What is known of those that run beside the detector."""
        self.decoded = 0
        """Frames that left the source."""
        self.written = 0
        """Frames that all sinks have taken."""
        self.detections = 0
        self.tracks = 0
        """Tracks that were confirmed at least once."""
        self.failure: BaseException | None = None
        """What ended the run early."""
        self.not_annotated = 0
        """Frames without an entry in the ground truth: they are in results.jsonl, not in detections.json."""
        self.dropped = DropCounter()
        """Frames that found no room before the network."""
        self.timeline: GapMarker | None = None
        """What knows the gaps of the source, once it is read."""
        self.latency, self.recent_latency = Latency(), RecentLatency()
        """Of live sources, from the arrival of a frame until all sinks have taken its result."""
        self.report: Report | None = None
        """Of the detections, where ground truth was given."""
        self.track_scores: dict[str, TrackScores] = {}
        """Of the tracks, by the name of the gate, where ground truth was given and tracks were written."""
        self.resumed_after = 0
        """Frames that an earlier process had done; they count as written again."""
        self.pieces: dict[str, int | None] | None = None
        """How many there are and how many were deleted, where the files are in pieces."""
        self.facts: dict | None = None
        """What was known at the start, for run.json; None until then."""
        self._stages: dict[str, Latency] = {}
        self._confirmed: set[int] = set()
        self._began, self._started = datetime.now(UTC), time.monotonic()
        self.last_progress = self._started
        """When the last frame was written, or, before the first, all began; of `time.monotonic`."""
        self.seconds = 0.0
        self.ended = False
        """Whether the run is over, and `seconds` its duration."""

    @property
    def state(self) -> str:
        """'complete', 'partial' when something ended the run early, 'recovered' when nobody could say so."""
        if isinstance(self.failure, RecoveredRun):
            return "recovered"
        return "partial" if self.failure else "complete"

    @property
    def reason(self) -> str | None:
        """What ended the run early, in words."""
        return None if self.failure is None else describe(self.failure)

    @property
    def exit_code(self) -> int:
        """The program's, by the table of the errors."""
        return self.failure.exit_code if isinstance(self.failure, MoteError) else int(bool(self.failure))

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the duration of a block to a stage."""
        started = time.perf_counter()
        yield
        self._add_time(stage, time.perf_counter() - started)

    def _add_time(self, stage: str, seconds: float) -> None:
        self._stages.setdefault(stage, Latency()).add(seconds)

    def add(self, result: Result) -> None:
        """Take in a frame that was written."""
        self.written += 1
        self.last_progress = time.monotonic()
        if result.frame.arrival is not None:
            seconds = self.last_progress - result.frame.arrival
            self.latency.add(seconds)
            self.recent_latency.add(seconds)
        self.detections += len(result.detections)
        for stage, seconds in result.timings.items():
            self._add_time(stage, seconds)
        tracks = result.tracks
        confirmed = set(tracks.ids[tracks.state != TrackState.TENTATIVE].tolist())
        self.tracks += len(confirmed - self._confirmed)
        # ids are never used twice, so those of dead tracks need not be remembered
        self._confirmed = (self._confirmed | confirmed) & set(tracks.ids.tolist())

    @property
    def live_tracks(self) -> int:
        """Confirmed tracks that were alive in the last frame, coasting ones included."""
        return len(self._confirmed)

    def remark(self) -> str:
        """For the progress line: of live sources the latency, and what was dropped."""
        dropped = self.dropped.count
        return ", ".join(filter(None, [str(self.recent_latency), f"{dropped} dropped" if dropped else ""]))

    def begin(self, truth: GroundTruth | None = None) -> None:
        """Write run.json with the state 'running'. Raises OutputError."""
        self.facts = {**self.described(), "annotations": truth and str(truth.path)}
        self._write("running", {})

    def finish(self, truth: GroundTruth | None) -> None:
        """Measure what was written against the ground truth and write run.json for good."""
        self.seconds, self.ended = time.monotonic() - self._started, True
        self.not_annotated = truth.not_annotated if truth else 0
        try:
            if truth and truth.frames:
                self.report = truth.score(self.config.detector.conf)
                _write_json(self.folder / METRICS, self._metrics(truth))
        except BaseException as error:
            self._fail(error)
            if not isinstance(error, MoteError):
                raise
        finally:
            try:
                self._write(self.state, self._account())
            except MoteError as error:
                self._fail(error)

    def _metrics(self, truth: GroundTruth) -> dict:
        """What metrics.json holds; the tracks are scored here."""
        metrics = self.report.as_dict()
        if self.pieces:
            metrics["notes"] = [*metrics["notes"], "tracks are not scored: they are in pieces"]
        elif self.config.output.mot:
            try:
                self.track_scores = truth.score_tracks(self.folder / MOT)
            except UsageError as error:  # annotations that do for detections need not do for tracks
                metrics["notes"] = [*metrics["notes"], f"tracks are not scored: {error}"]
        tracks = {gate: scores.as_dict() for gate, scores in self.track_scores.items()}
        return {**metrics, "tracks": tracks or None}

    def _fail(self, error: BaseException) -> None:
        """What fails first is the reason; what fails after it is noted on it."""
        if self.failure is None:
            self.failure = error
        else:
            self.failure.add_note(f"then: {error}")

    def described(self) -> dict:
        """What is known before the first frame: source, networks, configuration, and where all this runs."""
        info = self.source.info
        return {
            "mote": __version__,
            "command": [Path(sys.argv[0]).name, *map(redact, sys.argv[1:])],
            "started": self._began.isoformat(timespec="seconds"),
            "source": {**asdict(info), "rate": str(info.rate), "fingerprint": fingerprint(info.name)},
            "detector": self.detector,
            "segmenters": self.segmenters,
            "config": asdict(self.config),
            "versions": {"python": platform.python_version(), **_versions()},
            "machine": {"cores": os.cpu_count(), "system": platform.system(), "cpu": platform.machine()},
        }

    def _write(self, state: str, more: dict) -> None:
        _write_json(self.folder / RUN, {"state": state, **(self.facts or self.described()), **more})

    def _account(self) -> dict:
        frames = {
            "announced": self.source.info.frame_count,
            "decoded": self.decoded,
            "written": self.written,
            "dropped": {"queue full": self.dropped.count} if self.dropped.count else {},
            "unprocessed": self.decoded - self.written - self.dropped.count,
            "not_annotated": self.not_annotated,
            "corrupt": self.source.corrupt,
            "times_derived": self.source.derived_times,
        }
        return {
            "reason": self.reason,
            "seconds": None if self.state == "recovered" else round(self.seconds, 3),
            "resumed_after": self.resumed_after,
            **({"pieces": dict(self.pieces)} if self.pieces else {}),
            "frames": frames,
            "gaps": dict(self.timeline.events) if self.timeline else {},
            "latency_ms": self.latency.summary() if self.latency.count else None,
            "segmenters": [{**segmenter, **self._cost(segmenter["name"])} for segmenter in self.segmenters],
            "detections": self.detections,
            "tracks": self.tracks,
            "stages_ms": {name: latency.summary() for name, latency in self._stages.items()},
            "metrics": self.report.scores.as_dict() if self.report else None,
        }

    def _cost(self, segmenter: str) -> dict[str, float | None]:
        """Mean milliseconds of a segmenter per frame, and their share of what detector and tracker take."""
        stage = self._stages.get(STAGE.format(segmenter))
        if stage is None:
            return {"ms_per_frame": None, "overhead": None}
        others = [latency.total for name, latency in self._stages.items() if name in BASE_STAGES]
        share = stage.total / max(sum(others), 1e-9)
        return {"ms_per_frame": stage.summary()["mean"], "overhead": round(share, 4)}

    def _segmenter_rows(self) -> list[tuple[str, str]]:
        """Of the closing summary: each segmenter, its weights, and what it adds to the time of a frame."""
        rows = []
        for segmenter in self.segmenters:
            cost = self._cost(segmenter["name"])
            text = f"{segmenter['name']} with {segmenter['weights']}"
            if cost["overhead"] is not None:
                more = f"{100 * cost['overhead']:+.0f} % on top of the rest"
                text += f": {cost['ms_per_frame']:.1f} ms a frame, {more}"
            rows.append(("segmenter", text))
        return rows

    def _live_rows(self) -> list[tuple[str, str]]:
        """Of the closing summary: what was dropped, what else was missing, and how late results were."""
        rows = []
        if self.dropped.count:
            rows.append(("dropped", f"{self.dropped.count} frames, since the queue was full"))
        if self.timeline and self.timeline.events:
            rows.append(("gaps", ", ".join(f"{n} {event}" for event, n in self.timeline.events.items())))
        if self.latency.count:
            times = self.latency.summary()
            rows.append(("latency", f"{times['p50']:.1f} ms, 95 % below {times['p95']:.1f} ms"))
        return rows

    def table(self) -> str:
        """The closing summary for people: two aligned columns."""
        info, conf = self.source.info, self.config.detector.conf
        written = [name for name in OUTPUTS if (self.folder / name).exists()]
        each = self.detections / max(self.written, 1)
        computed = max(self.written - self.resumed_after, 0)
        rows = [
            ("source", f"{info.name}, {info.width}x{info.height}, {float(info.rate):g} frames/s"),
            ("detector", f"{self.detector['weights']} on {self.detector['device']}"),
            *self._segmenter_rows(),
            ("frames", f"{self.decoded} decoded, {self.written} written, {self.source.corrupt} corrupt"),
            *self._live_rows(),
            ("detections", f"{self.detections} of score {conf:g} or more, {each:.1f} a frame"),
            ("tracks", f"{self.tracks} confirmed"),
            ("speed", f"{computed / max(self.seconds, 1e-9):.1f} frames/s in {self.seconds:.1f} s"),
        ]
        if self.resumed_after:
            rows.append(("resumed", f"after {self.resumed_after} frames, which were not computed again"))
        for name in ("detect", "write"):
            if name in self._stages:
                times = self._stages[name].summary()
                rows.append((f"  {name}", f"{times['p50']:.1f} ms a frame, 95 % below {times['p95']:.1f} ms"))
        if self.not_annotated:
            rows.append(("not annotated", f"{self.not_annotated} frames, left out of detections.json"))
        if self.report:
            s = self.report.scores
            rows.append(("AP50", f"{s.ap50:.3f} over {s.frames} frames (AP {s.ap:.3f})"))
            rows.append(("best F1", f"{s.best_f1:.3f} at score {s.best_threshold:.2f}"))
            point = self.report.criteria["iou_0.5"].at_threshold
            alarms = f"{point.false_alarms_per_frame:.3g} false alarms a frame at score {conf:g}"
            rows.append(("recall", f"{shown(point.recall)} with {alarms}"))
        if "iou" in self.track_scores:
            t = self.track_scores["iou"]
            rows.append(("MOTA", f"{shown(t.mota)}, IDF1 {shown(t.idf1)}, {t.switches} switches"))
        if self.pieces:
            rows.append(("pieces", "{kept} kept, {deleted} deleted for the budget".format(**self.pieces)))
        rows += [("outputs", f"{self.folder}: {', '.join(written)}"), ("state", self.state)]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def read_record(folder: Path) -> dict:
    """The run.json of a folder. Raises UsageError where there is none that can be read."""
    path = folder / RUN
    try:
        table = json.loads(path.read_bytes())
        if not all(isinstance(table[key], dict) for key in ("source", "config", "detector")):
            raise ValueError("its sections are missing")
        return {"state": table["state"], "segmenters": table["segmenters"], "mote": table["mote"], **table}
    except OSError as error:
        raise UsageError(f"{folder} holds no run: cannot read {RUN}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(f"{path} is not the record of a run: {error}") from error


def _write_json(path: Path, table: dict) -> None:
    """Replace a JSON file as a whole. Raises OutputError."""
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "unknown"
    return found
