"""Fuzz target of the folder that a killed run leaves, with the readers of recovered and of resumed runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path

import numpy as np

from pipeline.sinks.coco import CocoSink
from pipeline.sinks.jsonl import JsonlSink
from pipeline.sinks.mot import MotSink
from pipeline.structures.detections import Detections, Segments
from pipeline.structures.frame import Frame, SourceInfo
from pipeline.structures.results import FrameDetections, Result
from pipeline.structures.tracks import Tracks, TrackState
from tests.faults.mutants import COUNT, SIZE, Seed, made, whole

BOXES = np.array([[3, 4, 8.25, 10], [20, 5, 22, 7.5]], np.float32)


def result(index: int, *, masks: bool) -> Result:
    """Returns the result of a frame with two detections, one of them with a track."""
    size = SIZE[::-1]
    regions = np.zeros(size, np.int32)
    regions[4:10, 3:8] = 1
    components = Detections(BOXES[:1], [0.7], [0])
    frame = Frame(np.zeros(size, np.uint8), index, Fraction(index, 30), "clip.mp4")
    state = [int(TrackState.CONFIRMED)]
    tracks = Tracks(BOXES[:1], [0.9], [0], [1], state, np.full((1, 2), 0.5), [index])
    segments = {"rdian": Segments(regions, components)} if masks else {}
    found = Detections(BOXES, [0.9, 0.3], [0, 0])
    return Result(frame, found, index < 2, {"decode": 0.0012}, tracks=tracks, segments=segments)


def header(*, masks: bool) -> dict:
    """Returns the run.json of a run that is running."""
    from pipeline.config.schema import RunConfig

    info = SourceInfo("clip.mp4", *SIZE, Fraction(30), COUNT, 8, 1)
    return {
        "state": "running",
        "mote": "1.0",
        "source": {**asdict(info), "rate": str(info.rate), "fingerprint": None},
        "detector": {"name": "tridos-nano", "classes": ["target"]},
        "segmenters": [{"name": "rdian"}] if masks else [],
        "config": asdict(RunConfig()),
        "annotations": None,
    }


def write_run(folder: Path, *, masks: bool = False) -> None:
    """Writes the files of a run that was killed after `COUNT` frames."""
    (folder / "run.json").write_text(json.dumps(header(masks=masks)))
    with ExitStack() as stack:
        sinks = [JsonlSink(folder / "results.jsonl"), MotSink(folder / "tracks.txt")]
        sinks.append(CocoSink(folder / "detections.json"))
        for sink in sinks:
            stack.enter_context(sink)
        for index in range(COUNT):
            for sink in sinks:
                sink.write(result(index, masks=masks))


def recovered(path: Path) -> str:
    """Recovers a run, twice."""
    from pipeline.runner.recovery import recover

    said = recover(path.parent)
    recover(path.parent)
    return "nothing to recover" if "nothing" in said else "recovered"


def resumed(*, masks: bool) -> Callable[[Path], str]:
    """Returns a reader that replays the recorded frames as a resumed run does."""

    def compute(frames: Iterable[Frame]) -> Generator[FrameDetections]:
        for frame in frames:
            yield FrameDetections(frame, Detections(BOXES, [0.9, 0.3], [0, 0]), frame.index < 2, {})

    def read(path: Path) -> str:
        from pipeline.config.schema import OutputConfig
        from pipeline.runner import resume

        output = OutputConfig(folder=str(path.parent), resume=True)
        with ExitStack() as locks:
            state = resume.find_resumable(path.parent, output, locks)
            state.require_same(header(masks=masks))
            frames = (result(index, masks=False).frame for index in range(COUNT))
            names = ["rdian"] * masks
            for _ in state.replay(frames, compute, batch=1, window=2, mask_names=names):
                pass
            state.require_complete(COUNT)
        return "resumed"

    return read


def run() -> list[Seed]:
    """Returns seeds of the folder of a killed run, to be recovered and to be resumed."""
    seeds = []
    for masks in (False, True):
        files = made(lambda folder, masks=masks: write_run(folder, masks=masks))
        files = {name: files[name] for name in ("results.jsonl", "run.json", "tracks.txt", "detections.json")}
        seeds += [Seed(files, whole, read) for read in (recovered, resumed(masks=masks))]
    return seeds
