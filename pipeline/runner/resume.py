"""Going on where a run over a file stopped.

The source is read from its start again, so all that looks at more than one frame comes to be as it was: the
levels of the picture, the clock, the tracker, trails and the annotated video. Only the network is spared:
what it found is in results.jsonl, which stays as it is and is appended to. It sees the last frames again, to
fill its window, and must find in them what it found before.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import MappingProxyType

import numpy as np

from detectors.networks.registry import SEGMENTERS
from pipeline.config.schema import OutputConfig, RunConfig
from pipeline.runner.run_record import read_record
from pipeline.sinks import zarr_store
from pipeline.sinks.file_names import JSONL, METRICS, RUN, ZARR
from pipeline.sinks.jsonl_codec import (
    EMPTY,
    ValidPrefix,
    detections_of,
    read,
    scan,
    seconds_of,
    segments_of,
    track_records,
)
from pipeline.sinks.rotating import pieces_in
from pipeline.structures.detections import Detections
from pipeline.structures.frame import Frame
from pipeline.structures.results import FrameDetections, Result
from pipeline.system.errors import UsageError
from pipeline.system.files import output_error, require_idle

NEAR_PIXELS, NEAR_SCORE = 0.05, 0.005
"""How far boxes and scores of the same frame may differ between two machines."""
FREE = ("output", "annotate", "service")
"""Sections of the configuration that may change: what they are about is made anew from the start."""
MAY_DIFFER = ("weights", "cache", "ms_per_frame", "overhead")
"""Names of files whose content is known by its digest or by its use, and what a run has measured."""


class ResumeState:
    """What an earlier process has left of a run; of a new run there is nothing."""

    def __init__(
        self,
        folder: Path | None = None,
        *,
        record: Mapping = MappingProxyType({}),
        arrays: bool = False,
    ):
        """`arrays` says whether results.zarr is wanted.

        Raises UsageError for a folder whose run is complete, goes on still, or kept no lines.
        """
        self._record, self._folder, self._path = record, folder, Path(folder or "", JSONL)
        self.begun = folder is not None
        """Whether there is a run to go on with."""
        self.written: ValidPrefix = EMPTY
        """What of results.jsonl stays."""
        self.stored = 0
        """How many frames of results.zarr stay."""
        self._spared = 0  # frames of which nothing is to be computed
        self._waiting: deque[dict] = deque()  # lines of frames that are under way
        if not self.begun:
            return
        if record["state"] == "complete":
            raise UsageError(
                f"{folder} holds a complete run: there is nothing to resume; use another --output"
            )
        with require_idle(self._path):
            self.written = scan(self._path)
            self._spared = self.written.count
            if arrays:  # lines do not hold the score maps
                self.stored = self._spared = min(zarr_store.survey(folder / ZARR), self._spared)

    def require_same(self, now: Mapping) -> None:
        """Raise UsageError unless the run goes on with the source, networks and settings that it began with.

        `now` is what run.json would say of it.
        """
        if not self.begun:
            return
        before, after = _settings(self._record), _settings(json.loads(json.dumps(now)))
        for name in sorted(before.keys() | after.keys()):
            was, now_is = before.get(name), after.get(name)
            if was != now_is:
                what = f"{name} is {now_is!r}, and was {was!r}"
                raise UsageError(f"{self._folder} cannot be resumed: {what}; use --overwrite to start anew")
        if now["source"]["live"] or now["source"]["name"] == "-":
            raise UsageError(
                f"{now['source']['name']} cannot be resumed: it cannot be read from the start again"
            )
        try:
            (self._folder / METRICS).unlink(missing_ok=True)
        except OSError as error:
            raise output_error(self._folder / METRICS, error) from error

    def then(
        self,
        compute: Callable[[Iterable[Frame]], Generator[FrameDetections]],
        frames: Iterator[Frame],
        config: RunConfig,
        *,
        window: int,
    ) -> Generator[FrameDetections]:
        """All frames of a source with what was found in them, and, after those, what is computed now.

        `compute` takes frames in batches and looks at `window` of them together; the batches are those of the
        first time, since others may differ in the last digits. Raises UsageError where the frames are not
        those that the lines are of.
        """
        count, batch, names = self.written.count, config.detector.batch, _marking(config)
        known = max(0, self._spared - window) // batch * batch  # so a whole window at least is seen again
        lines = read(self._path, count)
        for frame, line in zip(islice(frames, known), lines, strict=False):  # a frame is taken first
            yield self._found(frame, line, names)
        with closing(compute(_from_here(frames, alone=known > 0))) as found:
            for number, item in enumerate(found, start=known):
                line = next(lines, None)
                if line is None:
                    yield item
                    continue
                again = self._found(item.frame, line, names)
                if known == 0 or number >= known + window - 1:
                    self._require_alike(item.detections, again)
                yield again._replace(maps=item.maps)

    def checked(self, results: Iterable[Result]) -> Iterator[Result]:
        """The results, the first of which must have the tracks that their lines have.

        Raises UsageError for a tracker that does not repeat itself.
        """
        for result in results:
            if self._waiting and track_records(result.tracks) != self._waiting.popleft()["tracks"]:
                raise self._other(f"its tracker does not do again in frame {result.frame.index} what it did")
            yield result

    def require_all(self, written: int) -> None:
        """Raise UsageError if a run has ended with fewer frames than there are lines."""
        if written < self.written.count:
            raise self._other(f"the source has {written} frames, and had {self.written.count} or more")

    def _found(self, frame: Frame, line: dict, names: Sequence[str]) -> FrameDetections:
        """What a line says of its frame."""
        if (frame.index, seconds_of(frame)) != (line["frame"], line["pts"]):
            raise self._other(f"frame {line['frame']} of the source is not what it was")
        self._waiting.append(line)
        timings = {stage: (spent or 0) / 1e3 for stage, spent in line["timings_ms"].items()}
        segments = segments_of(line, names, frame.image.shape[:2]) if "masks" in line else {}
        return FrameDetections(frame, detections_of(line), line["warmup"], timings, segments)

    def _require_alike(self, now: Detections, again: FrameDetections) -> None:
        before = again.detections
        alike = len(now) == len(before) and (
            np.allclose(now.boxes, before.boxes, rtol=0, atol=NEAR_PIXELS)
            and np.allclose(now.scores, before.scores, rtol=0, atol=NEAR_SCORE)
        )
        if not alike:
            raise self._other(f"the network does not find again in frame {again.frame.index} what it found")

    def _other(self, what: str) -> UsageError:
        return UsageError(f"{self._folder} cannot be resumed: {what}; use --overwrite to start anew")


def find_resumable(folder: Path, output: OutputConfig) -> ResumeState:
    """What there is of the run in `folder`, if it is to be resumed and was begun."""
    if not (output.resume and (folder / RUN).exists()):
        return ResumeState()
    if not output.jsonl:
        raise UsageError(f"{JSONL} is what a run is resumed from; leave --no-save-jsonl out")
    if pieces_in(folder):
        raise UsageError(f"{folder} holds files in pieces and cannot be resumed; use --overwrite")
    return ResumeState(folder, record=read_record(folder), arrays=output.zarr)


def _marking(config: RunConfig) -> list[str]:
    """Names of the networks whose marks lines hold, in their order."""
    alone = [config.detector.name] if config.detector.name in SEGMENTERS else []
    return [*alone, *(row.name for row in config.segmentation.segmenters)]


def _from_here(frames: Iterator[Frame], *, alone: bool) -> Iterator[Frame]:
    """The frames; where they come `alone`, without those before them, the first one follows no gap."""
    for frame in frames:
        yield replace(frame, gap=None) if alone else frame
        alone = False


def _settings(record: Mapping) -> dict[str, object]:
    """What results depend on, by dotted names."""
    config = {name: section for name, section in record["config"].items() if name not in FREE}
    source = dict(record["source"])
    if source.get("fingerprint"):
        del source["name"]  # the same file may have another name
    networks = {"detector": record["detector"], "segmenters": record["segmenters"]}
    return _flat({"mote": record["mote"], "source": source, "config": config, "networks": networks}, "")


def _flat(values: Mapping | Sequence, where: str) -> dict[str, object]:
    """Nested tables and lists of tables as one; those of `MAY_DIFFER` are left out."""
    flat = {}
    for name, value in values.items() if isinstance(values, Mapping) else enumerate(values):
        if name in MAY_DIFFER:
            continue
        tables = isinstance(value, dict) or (isinstance(value, list) and value and isinstance(value[0], dict))
        flat |= _flat(value, f"{where}{name}.") if tables else {f"{where}{name}": value}
    return flat
