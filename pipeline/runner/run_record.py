"""Counts, timings and state of one run while it goes on."""

from __future__ import annotations

import bisect
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pipeline.config.schema import RunConfig
from pipeline.drawing.annotator import AnnotatorOptions
from pipeline.stages.gaps import DropCounter, GapMarker, RateLimit
from pipeline.structures.frame import SourceInfo
from pipeline.structures.results import STAGE, Result
from pipeline.structures.tracks import TrackState
from pipeline.system.errors import MoteError, describe
from pipeline.system.redaction import redact

if TYPE_CHECKING:
    from pipeline.evaluation.detection.report import DetectionReport
    from pipeline.evaluation.tracking.scores import TrackScores
    from pipeline.system.reserved import ReservedFile

BASE_STAGES = ("detect", "suppress", "track")
"""Stages of a run without segmenters; the overhead of a segmenter is a share of their time."""

RECENT = 300
"""Number of frames over which the progress line shows the latency."""


class Latency:
    """Histogram of a duration: count, sum, maximum and quantiles with a relative error of at most 6 %."""

    _EDGES = tuple(1e-6 * 10 ** (step / 20) for step in range(160))  # 1 µs to 90 s, 20 bins a decade
    _MIDDLES = tuple(edge * 10 ** (-1 / 40) for edge in _EDGES)

    def __init__(self) -> None:
        self._counts = [0] * (len(self._EDGES) + 1)
        self.count, self.total, self.maximum = 0, 0.0, 0.0

    def add(self, seconds: float) -> None:
        """Adds one duration."""
        self._counts[bisect.bisect_left(self._EDGES, seconds)] += 1
        self.count += 1
        self.total += seconds
        self.maximum = max(self.maximum, seconds)

    def quantile(self, share: float) -> float:
        """Returns the quantile in seconds; 0 if no duration was added."""
        wanted, seen = share * self.count, 0
        for count, middle in zip(self._counts, (*self._MIDDLES, self.maximum), strict=True):
            seen += count
            if count and seen >= wanted:
                return min(middle, self.maximum)
        return 0.0

    def summary(self) -> dict[str, float]:
        """Returns mean, quantiles and maximum in milliseconds, for run.json."""
        values = {
            "mean": self.total / max(self.count, 1),
            "p50": self.quantile(0.5),
            "p95": self.quantile(0.95),
            "p99": self.quantile(0.99),
            "max": self.maximum,
        }
        return {name: round(1e3 * value, 3) for name, value in values.items()}

    def cumulative(self) -> tuple[list[tuple[str, int]], float]:
        """Returns the buckets of a Prometheus histogram and the sum of all durations, both in seconds."""
        below, buckets = list(accumulate(self._counts)), []
        for step in (step for step in range(len(self._EDGES)) if step >= 60 and step % 20 in (0, 8, 14)):
            buckets.append((f"{self._EDGES[step]:.3g}", below[step]))  # 1, 2.5 and 5 of each decade from 1 ms
        return [*buckets, ("+Inf", below[-1])], self.total


class RecentLatency:
    """Latency from arrival to result of the last `RECENT` frames, as text for the progress line."""

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=RECENT)

    def add(self, seconds: float) -> None:
        """Adds the latency of one frame."""
        self._seconds.append(seconds)

    def __str__(self) -> str:
        """Median and 95th percentile; empty without frames."""
        known = sorted(self._seconds)
        if not known:
            return ""
        middle, high = (1e3 * known[int(share * (len(known) - 1))] for share in (0.5, 0.95))
        return f"latency {middle:.0f} ms, 95 % below {high:.0f} ms"


class RecoveredRun(MoteError):
    """The process was killed; the record was rebuilt from results.jsonl."""


class SourceState(Protocol):
    """What a record reads of its source; `pipeline.sources.source.FrameSource` has it."""

    @property
    def info(self) -> SourceInfo:
        """Properties that are known before the first frame."""

    @property
    def corrupt(self) -> int | None:
        """Number of damaged pictures skipped so far."""

    @property
    def derived_times(self) -> int | None:
        """Number of frames so far whose time was derived from the rate."""

    @property
    def reconnects(self) -> int:
        """Number of connections after the first that gave frames."""

    @property
    def outage(self) -> str | None:
        """Reason why a live source gives no frames at present; None if it does."""


class RunRecord:
    """The ledger of one run: what was counted, how long it took, and what ended it.

    Args:
        folder: output folder.
        source: the source, or what is known of one that is not open.
        config: resolved configuration.
        header: contents of run.json that are known before the first frame.
        dropped: counts the frames that found no room in the queue before the detector.
        limit: limit of the rate, which counts the frames that it leaves out; they do not count as decoded.
        gaps: counts the gaps of the source; None if it is not read.
        rotated: numbers of rotated files that are kept and deleted; None if files are not rotated.
        resumed_after: frames that an earlier process had finished; they count as written again.
        rules: names of the rules of events that are in effect.
    """

    def __init__(
        self,
        folder: Path,
        source: SourceState,
        config: RunConfig,
        header: dict[str, Any],
        *,
        dropped: DropCounter | None = None,
        limit: RateLimit | None = None,
        gaps: GapMarker | None = None,
        rotated: Mapping[str, int | None] | None = None,
        resumed_after: int = 0,
        rules: Sequence[str] = (),
    ):
        self.folder, self.source, self.config, self.header = folder, source, config, header
        self.dropped, self.limit = dropped or DropCounter(), limit or RateLimit(0)
        self.gaps, self.rotated, self.resumed_after = gaps, rotated, resumed_after
        self.decoded = 0
        """Frames that left the source, without those that were skipped."""
        self.written = 0
        """Frames that all sinks have taken."""
        self.detections = 0
        self.drawn = 0
        """Detections whose score is `drawn_from` or more."""
        self.drawn_from = float(config.annotate.get("min_score", AnnotatorOptions.min_score))
        """Minimum score of a detection that is drawn without a track."""
        self.best_score = 0.0
        """Highest score of a detection."""
        self.tracks = 0
        """Tracks that were confirmed at least once."""
        self.events: dict[str, int] = dict.fromkeys(rules, 0)
        """Events that have started, by the name of the rule."""
        self.failure: BaseException | None = None
        """What ended the run early."""
        self.not_annotated = 0
        """Frames without an entry in the ground truth; they are missing in detections.json."""
        self.latency, self.recent_latency = Latency(), RecentLatency()
        """Of live sources: from the arrival of a frame until all sinks have taken its result."""
        self.report: DetectionReport | None = None
        """Detection metrics; None without ground truth."""
        self.track_scores: dict[str, TrackScores] = {}
        """Track metrics by the name of the gate; empty without ground truth or tracks."""
        self.tracks_unscored = ""
        """Why the tracks are not scored although there is ground truth; empty otherwise."""
        self.stages: dict[str, Latency] = {}
        """Seconds per frame by stage."""
        self.seconds = 0.0
        self.reserved: ReservedFile | None = None
        """Room on the disk for the final run.json; None if the run is only recovered."""
        self.ended = False
        """True once the run is over and `seconds` is its duration."""
        self._confirmed: set[int] = set()
        self._started = time.monotonic()
        self.last_progress = self._started
        """Time of the last frame written, else of the start; of `time.monotonic`."""

    @property
    def state(self) -> str:
        """'complete', 'partial' if something ended the run early, 'recovered' if its process was killed."""
        if isinstance(self.failure, RecoveredRun):
            return "recovered"
        return "partial" if self.failure else "complete"

    @property
    def reason(self) -> str | None:
        """Message of what ended the run early."""
        return None if self.failure is None else redact(describe(self.failure))

    @property
    def exit_code(self) -> int:
        """Exit code of the program, see `pipeline.system.errors`."""
        return self.failure.exit_code if isinstance(self.failure, MoteError) else int(bool(self.failure))

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Adds the duration of the block to a stage."""
        started = time.perf_counter()
        yield
        self._add_time(stage, time.perf_counter() - started)

    def _add_time(self, stage: str, seconds: float) -> None:
        self.stages.setdefault(stage, Latency()).add(seconds)

    def add(self, result: Result) -> None:
        """Counts a frame that was written."""
        self.written += 1
        self.last_progress = time.monotonic()
        if result.frame.arrival is not None:
            seconds = self.last_progress - result.frame.arrival
            self.latency.add(seconds)
            self.recent_latency.add(seconds)
        scores = result.detections.scores
        self.detections += len(scores)
        self.drawn += int((scores >= self.drawn_from).sum())
        self.best_score = max(self.best_score, float(scores.max(initial=0)))
        for stage, seconds in result.timings.items():
            self._add_time(stage, seconds)
        tracks = result.tracks
        confirmed = set(tracks.ids[tracks.state != TrackState.TENTATIVE].tolist())
        self.tracks += len(confirmed - self._confirmed)
        for event in result.events:
            self.events[event.rule] += event.phase == "start"
        # ids are never used twice, so those of dead tracks need not be remembered
        self._confirmed = (self._confirmed | confirmed) & set(tracks.ids.tolist())

    @property
    def live_tracks(self) -> int:
        """Number of confirmed tracks in the last frame, coasting ones included."""
        return len(self._confirmed)

    def progress_note(self) -> str:
        """Returns the latency of live sources, and how many frames were dropped or skipped."""
        counts = {"dropped": self.dropped.count, "skipped": self.limit.skipped.count}
        return ", ".join(
            filter(None, [str(self.recent_latency), *(f"{n} {what}" for what, n in counts.items() if n)])
        )

    def stop_clock(self) -> None:
        """Ends the run and sets its duration."""
        self.seconds, self.ended = time.monotonic() - self._started, True

    def fail(self, error: BaseException) -> None:
        """Sets the reason of the end; a later error is noted on the first."""
        if self.failure is None:
            self.failure = error
        else:
            self.failure.add_note(f"then: {error}")

    def segmenter_cost(self, name: str) -> dict[str, float | None]:
        """Returns the mean milliseconds of a segmenter per frame and their ratio to detector and tracker."""
        stage = self.stages.get(STAGE.format(name))
        if stage is None:
            return {"ms_per_frame": None, "overhead": None}
        others = [latency.total for name, latency in self.stages.items() if name in BASE_STAGES]
        ratio = stage.total / max(sum(others), 1e-9)
        return {"ms_per_frame": stage.summary()["mean"], "overhead": round(ratio, 4)}
