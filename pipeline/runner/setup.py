"""pipeline.runner.setup."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, is_dataclass, replace
from pathlib import Path

from pipeline.config.parsing import build
from pipeline.config.schema import DetectorConfig, RunConfig
from pipeline.drawing.annotator import Annotator, AnnotatorOptions
from pipeline.runner.ground_truth import GroundTruth
from pipeline.runner.resume import ResumeState
from pipeline.sinks.base import Sink
from pipeline.sinks.coco import CocoSink
from pipeline.sinks.file_names import COCO, JSONL, MOT, OUTPUTS, UNFINISHED, VIDEO, ZARR
from pipeline.sinks.jsonl import JsonlSink
from pipeline.sinks.mot import MotSink
from pipeline.sinks.rotating import RotatingSink, SizedSink, delete, pieces_in
from pipeline.sinks.video import VideoSink
from pipeline.sinks.zarr_store import ZarrSink, is_store
from pipeline.structures.frame import SourceInfo
from pipeline.structures.protocols import Tracker
from pipeline.system.errors import OutputError
from pipeline.system.files import output_error
from pipeline.system.redaction import stream_name


def resolved(
    config: RunConfig, tracker: Tracker, annotator: Annotator, facts: dict, segmenters: Sequence[dict]
) -> RunConfig:
    """The configuration with every default and every automatic choice replaced by what it came to."""
    batch = batch_size(config.detector, facts["device"])
    chosen = {"name": facts["name"], "weights": facts["weights"], "device": facts["device"], "batch": batch}
    chosen |= {"threads": facts["threads"], "enlarge": facts["enlarge"]}
    chosen |= {"backend": facts.get("backend", "torch")}
    rows = [
        replace(row, **{key: known[key] for key in ("name", "weights", "enlarge")})
        for row, known in zip(config.segmentation.segmenters, segmenters, strict=True)
    ]
    options = getattr(tracker, "options", None)
    options = asdict(options) if is_dataclass(options) else config.tracker.options
    return replace(
        config,
        detector=replace(config.detector, **chosen),
        segmentation=replace(config.segmentation, segmenters=tuple(rows)),
        tracker=replace(config.tracker, options=options),
        annotate=asdict(annotator.options),
    )


def batch_size(config: DetectorConfig, device: str) -> int:
    """Frames computed together, where the configuration leaves it open: latency first on a CPU."""
    return config.batch or (8 if device.startswith("cuda") else 1)


def prompt(config: RunConfig) -> RunConfig:
    """Of a live source, a batch that is left open is one frame: it would have to wait for others."""
    return replace(config, detector=replace(config.detector, batch=config.detector.batch or 1))


def run_name(location: str) -> str:
    """What the outputs of a source are named after: its file or folder, or that of a pattern of images."""
    if not os.path.exists(location) and (name := stream_name(location)):
        return name
    place = Path(os.path.abspath(location))
    if glob.has_magic(place.name):
        place = place.parent
    return place.stem or "run"


def prepare_folders(folders: Sequence[Path], *, overwrite: bool, sources: Sequence[str]) -> None:
    """Make the output folders, free of earlier runs' files; OutputError where one cannot be.

    None of the `sources`, which are to be read, is removed, and nothing before all folders are found good.
    """
    for folder in folders:
        _require_free(folder, overwrite, sources)
    for folder in folders:
        for path in [folder / output for output in (*OUTPUTS, *UNFINISHED)]:
            delete(path)
        for piece in pieces_in(folder):
            piece.delete()


def _require_free(folder: Path, overwrite: bool, sources: Sequence[str]) -> None:
    """Make the folder; OutputError where it holds what must not be removed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        present = [folder / output for output in OUTPUTS if (folder / output).exists()]
        present += [path for piece in pieces_in(folder) for path in piece.files()]
        if present and not overwrite:
            found = f"{folder} holds an earlier run ({present[0].name})"
            raise OutputError(f"{found}; use --overwrite or another --output")
        strange = next((path for path in present if path.is_dir() and not is_store(path)), None)
        if strange:
            raise OutputError(f"{strange} is a folder where a file is to be written; use another --output")
        for location in filter(os.path.exists, sources):
            if any(path.samefile(location) for path in present):
                raise OutputError(f"{location} is to be read and would be overwritten; use another --output")
    except OSError as error:
        raise output_error(folder, error) from error


def make_annotator(config: RunConfig, classes: list[str]) -> Annotator:
    """The annotator that the configuration asks for; classes are named where there are several."""
    options = dict(config.annotate)
    if not options.get("class_names") and len(classes) > 1:
        options["class_names"] = classes
    return Annotator(build(AnnotatorOptions, options, "annotate."))


def open_sinks(
    folder: Path,
    config: RunConfig,
    info: SourceInfo,
    annotator: Annotator,
    truth: GroundTruth | None,
    classes: int,
    *,
    past: ResumeState,
) -> list[Sink]:
    """The sinks that the configuration asks for; each file opens when they are entered.

    `past` says what stays of the files where a run is resumed.
    """
    wanted = config.output

    def files(place: Callable[[str], Path]) -> list[SizedSink]:
        sinks: list[SizedSink] = []
        if wanted.jsonl:
            sinks.append(JsonlSink(place(JSONL), kept=past.written))
        if wanted.coco:
            names = {"image_id": truth.image_id, "category_id": truth.category_ids(classes)} if truth else {}
            sinks.append(CocoSink(place(COCO), **names))
        if wanted.mot:
            sinks.append(MotSink(place(MOT)))
        if wanted.video:
            endless = info.live and not wanted.rotation
            sinks.append(VideoSink(place(VIDEO), info, annotator, quality=wanted.quality, endless=endless))
        if wanted.zarr:
            sinks.append(ZarrSink(place(ZARR), info, kept=past.stored))
        return sinks

    return [RotatingSink(folder, files, wanted.rotation)] if wanted.rotation else files(folder.joinpath)


def account_of(sinks: Sequence[Sink]) -> dict[str, int] | None:
    """What is counted of the pieces, if the files are in pieces."""
    return next((sink.account for sink in sinks if isinstance(sink, RotatingSink)), None)


def distinct_names(locations: Sequence[str]) -> list[str]:
    """A folder name for each source: its own, with _2, _3, … where an earlier one has it, in any case."""
    names, taken = [], set()
    wanted = [run_name(location) for location in locations]
    for name in wanted:
        distinct, number = name, 1
        while distinct.casefold() in taken or (number > 1 and distinct in wanted):
            number += 1
            distinct = f"{name}_{number}"
        names.append(distinct)
        taken.add(distinct.casefold())
    return names


def _with_batch(config: RunConfig, device: str, count: int) -> RunConfig:
    """A batch that is left open takes a frame of each source on a GPU; a CPU computes one after another."""
    size = batch_size(config.detector, device)
    if not config.detector.batch and device.startswith("cuda"):
        size = max(size, count)
    return replace(config, detector=replace(config.detector, batch=size))
