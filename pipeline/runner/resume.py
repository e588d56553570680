"""Resuming an interrupted run over a file.

The source is read from its start again, so everything that depends on earlier frames is rebuilt as it was:
intensity scaling, the clock, the tracker, trails and the annotated video. Only the network is spared: its
detections are in results.jsonl, which is kept and appended to. The network sees the last of these frames
again, to fill its temporal window, and must find in them what it found before.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from pipeline.config.schema import OutputConfig
from pipeline.events.event_file import forget_missing, scan_events
from pipeline.runner.run_json import read_record
from pipeline.sinks import zarr_store
from pipeline.sinks.file_names import EVENTS, JSONL, METRICS, RUN, UNFINISHED, ZARR
from pipeline.sinks.jsonl_codec import (
    EMPTY,
    ValidPrefix,
    detections_of,
    motion_of,
    read_records,
    scan,
    seconds_of,
    segments_of,
    track_records,
)
from pipeline.sinks.rotating import find_rotated_files
from pipeline.structures.detections import Detections
from pipeline.structures.frame import Frame
from pipeline.structures.results import FrameDetections, Result
from pipeline.system.errors import UsageError, as_json
from pipeline.system.files import output_error, require_idle

NEAR_PIXELS = 0.05
"""Tolerance in pixels for boxes of the same frame that were computed on two machines."""
NEAR_SCORE = 0.005
"""Tolerance for their scores."""
FREE = ("output", "annotate", "service", "alarms")
"""Sections of the configuration that may change: no result depends on them."""
MAY_DIFFER = ("weights", "cache", "ms_per_frame", "overhead")
"""Keys of run.json that may change: paths of files that are known by their digest, and measured times."""


class ResumeState:
    """State of an interrupted run found in its output folder; empty for a new run.

    Args:
        folder: output folder of the run; None for a new run.
        record: contents of its run.json.
        arrays: whether results.zarr is written.

    Raises:
        UsageError: the run is complete, or its results.jsonl is damaged.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        record: Mapping[str, Any] = MappingProxyType({}),
        arrays: bool = False,
    ):
        self._record, self._folder = record, folder
        self.written: ValidPrefix = EMPTY
        """The part of results.jsonl that is kept."""
        self.events: ValidPrefix = EMPTY
        """The part of events.jsonl that is kept."""
        self.stored = 0
        """Number of frames of results.zarr that are kept."""
        self._known = 0  # frames whose results are known
        self._replayed: deque[dict[str, Any]] = deque()  # lines of frames that are on their way to the sinks
        if folder is None:
            return
        if record["state"] == "complete":
            raise UsageError(
                f"{folder} holds a complete run: there is nothing to resume; use another --output"
            )
        self.written, self.events = scan(folder / JSONL), scan_events(folder / EVENTS)
        self._known = self.written.line_count
        if arrays:  # results.jsonl does not hold the score maps
            self.stored = self._known = min(zarr_store.count_complete_frames(folder / ZARR), self._known)

    @property
    def run_id(self) -> str | None:
        """The id of the run; None if it has none."""
        return self._record.get("id")

    @property
    def begun(self) -> bool:
        """True if there is a run to resume."""
        return self._folder is not None

    def require_same(self, header: Mapping[str, Any]) -> None:
        """Raises UsageError unless source, networks and settings are those of the interrupted run.

        `header` is the beginning of the new run.json.
        """
        if not self.begun:
            return
        before, after = _settings(self._record), _settings(json.loads(json.dumps(header)))
        for name in sorted(before.keys() | after.keys()):
            was, now = before.get(name), after.get(name)
            if was != now:
                raise self._refusal(f"{name} is {as_json(now)}, and was {as_json(was)}")
        source = header["source"]
        if source["live"] or source["name"] == "-":
            raise UsageError(f"{source['name']} cannot be resumed: it cannot be read from the start again")

    def discard_scores(self) -> None:
        """Removes the metrics.json and the unfinished files of the interrupted run. Raises OutputError."""
        for name in (METRICS, *UNFINISHED):
            path = Path(self._folder or "", name)
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise output_error(path, error) from error

    def replay(
        self,
        frames: Iterator[Frame],
        otherwise: Callable[[Iterable[Frame]], Generator[FrameDetections]],
        *,
        batch: int,
        window: int,
        mask_names: Sequence[str],
    ) -> Generator[FrameDetections]:
        """Yields the recorded detections of the frames that are known, then those that are computed.

        Args:
            frames: all frames of the source, with their gaps marked.
            otherwise: computes the detections of a stream of frames.
            batch: number of frames computed together. Batches are those of the interrupted run, since others
                may change the last digits.
            window: number of frames in the temporal window of the detector.
            mask_names: names of the networks whose masks results.jsonl holds.

        Raises:
            UsageError: the frames or their detections differ from the recorded ones.
        """
        if self._folder is None:
            with closing(otherwise(frames)) as found:
                yield from found
            return
        spared = max(0, self._known - window) // batch * batch  # the network sees at least one window again
        lines = read_records(self._folder / JSONL, self.written.line_count)
        for frame, line in zip(islice(frames, spared), lines, strict=False):  # a frame is taken first
            yield self._recorded(frame, line, mask_names)
        with closing(otherwise(_without_gap_at_start(frames) if spared else frames)) as found:
            for number, computed in enumerate(found, start=spared):
                line = next(lines, {})
                if not line:
                    yield computed
                    continue
                recorded = self._recorded(computed.frame, line, mask_names)
                if spared == 0 or number >= spared + window - 1:
                    self._require_close(computed.detections, recorded)
                yield replace(recorded, maps=computed.maps)

    def verify_tracks(self, results: Iterable[Result]) -> Iterator[Result]:
        """Yields the results; raises UsageError if a replayed frame has other tracks than recorded."""
        for result in results:
            if self._replayed and track_records(result.tracks) != self._replayed.popleft()["tracks"]:
                raise self._refusal(
                    f"its tracker gives other tracks in frame {result.frame.index} than before"
                )
            yield result

    def require_complete(self, written: int) -> None:
        """Raises UsageError if the run ended with fewer frames than were recorded."""
        if written < self.written.line_count:
            raise self._refusal(f"the source has {written} frames, and had {self.written.line_count} or more")

    def _recorded(self, frame: Frame, line: dict[str, Any], mask_names: Sequence[str]) -> FrameDetections:
        """Returns the detections of a frame that are recorded in its line."""
        if (frame.index, seconds_of(frame)) != (line["frame"], line["pts"]):
            raise self._refusal(f"frame {line['frame']} of the source is not what it was")
        self._replayed.append(line)
        timings = {stage: (spent or 0) / 1e3 for stage, spent in line["timings_ms"].items()}
        try:
            segments = segments_of(line, mask_names, frame.image.shape[:2]) if "masks" in line else {}
        except ValueError as error:
            raise self._refusal(f"frame {line['frame']} of {JSONL} is damaged: {error}") from error
        frame = replace(frame, motion=motion_of(line))  # another machine may differ in the last digit
        return FrameDetections(frame, detections_of(line), line["warmup"], timings, segments)

    def _require_close(self, computed: Detections, recorded: FrameDetections) -> None:
        before = recorded.detections
        close = len(computed) == len(before) and (
            np.allclose(computed.boxes, before.boxes, rtol=0, atol=NEAR_PIXELS)
            and np.allclose(computed.scores, before.scores, rtol=0, atol=NEAR_SCORE)
        )
        if not close:
            raise self._refusal(
                f"the network finds other targets in frame {recorded.frame.index} than before"
            )

    def _refusal(self, reason: str) -> UsageError:
        return UsageError(f"{self._folder} cannot be resumed: {reason}; use --overwrite to start again")


def find_resumable(folder: Path, output: OutputConfig, locks: ExitStack) -> ResumeState:
    """Returns the state of the run in `folder` if it is to be resumed and exists, else an empty state.

    The folder of a run that is to be resumed is locked until `locks` is closed. Raises UsageError if the run
    cannot be resumed, or is still going.
    """
    if not (output.resume and (folder / RUN).exists()):
        return ResumeState()
    locks.enter_context(require_idle(folder))
    if not output.jsonl:
        raise UsageError(f"a run is resumed from {JSONL}; leave --no-save-jsonl out")
    if find_rotated_files(folder):
        raise UsageError(f"{folder} holds rotated files and cannot be resumed; use --overwrite")
    record = read_record(folder)
    forget_missing(folder / EVENTS)
    return ResumeState(folder, record=record, arrays=output.zarr)


def _without_gap_at_start(frames: Iterator[Frame]) -> Iterator[Frame]:
    """Yields the frames; the first one follows no gap, since the detector has not seen those before it."""
    for frame in islice(frames, 1):
        yield replace(frame, gap=None)
    yield from frames


def _settings(record: Mapping[str, Any]) -> dict[str, object]:
    """Returns what results depend on, by dotted names."""
    config = {name: section for name, section in record["config"].items() if name not in FREE}
    source = dict(record["source"])
    if source.get("fingerprint"):
        del source["name"]  # the same file may have another name
    networks = {"detector": record["detector"], "segmenters": record["segmenters"]}
    return _flat({"mote": record["mote"], "source": source, "config": config, "networks": networks}, "")


def _flat(values: Mapping[str, Any] | Sequence[Any], prefix: str) -> dict[str, object]:
    """Flattens nested tables and lists of tables; keys of `MAY_DIFFER` are left out."""
    items = values.items() if isinstance(values, Mapping) else enumerate(values)
    flat: dict[str, object] = {}
    for name, value in items:
        if name in MAY_DIFFER:
            continue
        nested = isinstance(value, dict) or (isinstance(value, list) and value and isinstance(value[0], dict))
        flat |= _flat(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return flat
