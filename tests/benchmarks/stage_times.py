"""Measures each stage of a run in sequence, for `tests.benchmarks.speed`."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import detectors
import trackers
from detectors.inference.streaming import StreamingDetector
from detectors.loading import load_detector
from detectors.weights import state_dict, zoo
from pipeline.config.schema import DetectorConfig, OutputConfig, TrackerConfig
from pipeline.drawing.annotator import Annotator, AnnotatorOptions
from pipeline.sinks.file_names import VIDEO
from pipeline.sinks.video import VideoSink
from pipeline.sources.opening import open_source
from pipeline.stages.tracking import track
from pipeline.structures.frame import Frame

STAGES = (
    "decode",
    "prepare",
    "network, one frame",
    "network, pair",
    "network, join",
    "boxes and NMS",
    "track",
    "draw and encode",
)
WARM = 5
"""Warm-up frames, which fill the window and are not measured."""


def of_stages(name: str, size: str, options: Any) -> dict[str, float]:
    """Returns the median seconds per frame of each stage.

    `options` has video, device, threads, precision and rounds.
    """
    spent: dict[str, list[float]] = {stage: [] for stage in STAGES}
    with tempfile.TemporaryDirectory() as place:
        detector = _detector(name, size, Path(place), options)
        device = detector.device

        def timed(stage: str, work: Callable[[], Any]) -> Any:
            started = time.perf_counter()
            result = work()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            spent[stage].append(time.perf_counter() - started)
            return result

        tracker = trackers.build(TrackerConfig.name)
        with open_source(options.video, max_frames=WARM + options.rounds) as source:
            annotator = Annotator(AnnotatorOptions())
            with VideoSink(Path(place, VIDEO), source.info, annotator, quality=OutputConfig.quality) as video:
                while (frame := timed("decode", lambda: next(source, None))) is not None:
                    features = _through_network(detector, frame, timed)
                    found = timed("boxes and NMS", lambda f=features: next(iter(detector.postprocess([f]))))
                    result = timed("track", lambda f=found: next(iter(track([f], tracker))))
                    timed("draw and encode", lambda r=result: video.write(r))
    return {stage: statistics.median(values[WARM:] or values) for stage, values in spent.items()}


def _detector(name: str, size: str, place: Path, options: Any) -> StreamingDetector:
    """Loads a detector with its shipped weights, or random ones if there are none."""
    chosen = zoo.default_weights(name)
    if chosen is None:
        torch.manual_seed(0)
        chosen = str(place / "random.safetensors")
        state_dict.save(detectors.build(name).state_dict(), Path(chosen), metadata={"trained_on": "nothing"})
    config = DetectorConfig(
        name=name,
        weights=chosen,
        size=size,
        device=options.device,
        precision=options.precision,
        backend="torch",
        threads=options.threads,
    )
    return load_detector(config)[0]


@torch.inference_mode()
def _through_network(detector: StreamingDetector, frame: Frame, timed: Callable) -> Any:
    """Computes the raw output of the next frame and times each part of the network."""
    model, stream = detector.model, detector.stream
    pixels = timed("prepare", lambda: detector.preprocess((frame,)))
    features = timed("network, one frame", lambda: model.frame_features(pixels))
    older = stream.previous(features.spatial)
    pairs = timed("network, pair", lambda: model.pair_features(older, features.spatial))
    pending = detector.pending((frame,), stream.append(features, pairs))
    raw = timed("network, join", lambda: model.join(*pending.parts))
    return detector.raw_output(pending, raw)
