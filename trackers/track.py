"""Tracks the detections of a finished run again: `python -m trackers.track runs/NAME --output DIR`.

The detections are read from results.jsonl, or from the rotated files of a run, so no video is decoded and no
network is computed. Times between frames follow from their presentation times, and gaps are those that the
run recorded. Rules of events are judged again, too; clips and pictures of events need the video, and are not
made.
"""

from __future__ import annotations

import argparse
import secrets
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import trackers
from pipeline.config.events_section import EventsConfig
from pipeline.config.parsing import build, load_toml, override, parse_setting
from pipeline.config.schema import OutputConfig, RunConfig
from pipeline.events.engine import EventEngine
from pipeline.events.recovery import recorded_time
from pipeline.events.rules import require_classes, rules_of
from pipeline.events.sink import EventSink
from pipeline.runner.recovery import (
    RecordedSource,
    recorded_gap,
    recorded_info,
    recorded_results,
    recorded_truth,
)
from pipeline.runner.run_json import read_record, write_end, write_start
from pipeline.runner.run_record import RunRecord
from pipeline.runner.setup import resolve_tracker
from pipeline.runner.summary import run_table
from pipeline.sinks.base import Sink, Sinks
from pipeline.sinks.file_names import EVENTS, JSONL, MOT
from pipeline.sinks.folders import prepare_folders
from pipeline.sinks.jsonl import JsonlSink
from pipeline.sinks.jsonl_codec import read_records, scan
from pipeline.sinks.mot import mot_sink
from pipeline.sinks.rotating import find_rotated_files
from pipeline.stages.gaps import GapMarker
from pipeline.stages.tracking import track
from pipeline.structures.frame import SourceInfo
from pipeline.structures.results import FrameDetections
from pipeline.system import cli
from pipeline.system.errors import UsageError


def parser() -> cli.Parser:
    """Builds the command line."""
    parser = cli.Parser(
        prog="python -m trackers.track",
        description="Tracks the detections of a finished run again, without video and network. Writes "
        "results.jsonl, tracks.txt and run.json, metrics.json if there is ground truth, and events.jsonl if "
        "there are rules of events.",
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="output folder of a run, or its results.jsonl")
    parser.add_argument("--output", metavar="DIR", type=Path, required=True, help="output folder")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace an earlier run in the output folder"
    )
    parser.add_argument("--tracker", metavar="NAME", help="tracker (default: that of the run)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="OPTION=VALUE", help="option of the tracker; repeatable"
    )
    text = "file with the rules of events, in its section [events] (default: those of the run)"
    parser.add_argument("--config", metavar="TOML", type=Path, help=text)
    text = "find events, by the rule any-target if there are no rules (default: if there are rules)"
    parser.add_argument("--events", action=argparse.BooleanOptionalAction, help=text)
    text = "write predicted boxes to tracks.txt, too (default: as the run did)"
    parser.add_argument("--save-coasting", action=argparse.BooleanOptionalAction, help=text)
    text = "write smoothed tracks to tracks.txt (default: as the run did)"
    parser.add_argument("--smooth", action=argparse.BooleanOptionalAction, help=text)
    text = "COCO-video ground truth of the source (default: the file that the run was given)"
    parser.add_argument("--annotations", metavar="JSON", type=Path, help=text)
    return parser


def work(options: argparse.Namespace) -> None:
    """Tracks, writes and prints the summary. Raises MoteError."""
    folder = options.run.parent if options.run.name == JSONL else options.run
    old = read_record(folder)
    config = build(RunConfig, old["config"])
    paths = recorded_files(folder, config)
    wanted = {"coasting": options.save_coasting, "smooth": options.smooth}
    config = configuration(config, options.tracker, options.set, wanted)
    config = replace(config, events=events_section(config.events, options.config, options.events))
    tracker = trackers.build(config.tracker.name, **config.tracker.options)
    config = replace(config, tracker=resolve_tracker(config.tracker, tracker))
    info = recorded_info(old)
    truth = recorded_truth(old, config, options.annotations)
    header = {key: old[key] for key in old if key not in ("state", "reason", "frames")}
    header |= {"config": asdict(config), "detections_of": str(folder)}
    told = [path.with_name(path.name.replace(Path(JSONL).stem, Path(EVENTS).stem, 1)) for path in paths]
    events = recorded_events(old, config, info, told)
    rules = events.rules if events else ()
    record = RunRecord(options.output, RecordedSource(info), config, header, rules=rules)
    with ExitStack() as locks:
        prepare_folders([options.output], locks, overwrite=options.overwrite, sources=[*map(str, paths)])
        write_start(record)
        sinks: list[Sink] = [JsonlSink(options.output / JSONL)]
        sinks += [events.open_file(options.output / EVENTS), events] if events else []
        sinks.append(mot_sink(options.output / MOT, config.output))
        try:
            with Sinks(sinks) as outputs:
                found = recorded_detections(paths, info, stride=config.source.stride)
                for result in track(found, tracker):
                    record.decoded += 1
                    result = events.complete(result) if events else result
                    outputs.write(result)
                    record.add(result)
                    if truth:
                        truth.add(result)
        except BaseException as error:
            record.fail(error)
            raise
        finally:
            write_end(record, truth)
    print(run_table(record))


def recorded_files(folder: Path, config: RunConfig) -> list[Path]:
    """Returns the results.jsonl in the folder of a run, or its rotated files in their order.

    Raises UsageError, which says why, if there are none or they hold no frames; `config` is the run's.
    """
    path = folder / JSONL
    if path.exists():
        paths = [path]
    else:
        rotated = find_rotated_files(folder) if folder.is_dir() else []
        paths = [path for files in rotated if (path := files.path(JSONL)).exists()]
    if paths:
        if not any(path.stat().st_size for path in paths):
            raise UsageError(f"{paths[0]} holds no frames")
        return paths
    why = "it was moved or removed" if config.output.jsonl else "the run was given --no-save-jsonl"
    raise UsageError(f"{folder} has no {JSONL}: {why}")


def configuration(
    config: RunConfig, tracker: str | None, settings: list[str], wanted: Mapping[str, bool | None]
) -> RunConfig:
    """Returns the configuration of a run with another tracker and other options of it. Raises UsageError.

    Options of the run are kept if its tracker is, and keys of its output that are None in `wanted`.
    """
    name = tracker or config.tracker.name
    options: dict[str, Any] = dict(config.tracker.options) if name == config.tracker.name else {}
    options = override(options, [parse_setting(text) for text in settings])
    kept = {key: getattr(config.output, key) if value is None else value for key, value in wanted.items()}
    output = build(OutputConfig, {"video": False, "coco": False, **kept}, "output.")
    return replace(config, tracker=replace(config.tracker, name=name, options=options), output=output)


def events_section(recorded: EventsConfig, path: Path | None, wanted: bool | None) -> EventsConfig:
    """Returns the section of events without evidence, which needs the video.

    Args:
        recorded: that of the run.
        path: file with another one.
        wanted: whether there are events; None if that section says so.

    Raises UsageError.
    """
    section = recorded
    if path is not None:
        section = build(RunConfig, load_toml(path)).events
    enabled = section.enabled if wanted is None else wanted
    return replace(section, evidence=False, enabled=enabled)


def recorded_events(
    old: Mapping[str, Any], config: RunConfig, info: SourceInfo, paths: Sequence[Path]
) -> EventSink | None:
    """Returns what finds and writes the events of a recorded run; None if no rule is for its source.

    Args:
        old: contents of its run.json.
        config: the configuration.
        info: its source.
        paths: its events.jsonl, or those of its rotated files in order, which tell the time of a live source.

    Raises UsageError for rules that do not fit.
    """
    name, section, classes = old.get("stream", ""), config.events, old["detector"]["classes"]
    if not rules_of(section, name):
        return None
    require_classes(section, [str(one) for one in config.detector.classes] or classes)
    clock = recorded_time(dict(old), paths) if info.live else None
    run = old.get("id") or secrets.token_hex(6)
    engine = EventEngine(section, info, name, classes, run=run, time_of_day=clock)
    return EventSink(engine, live=info.live)


def recorded_detections(
    paths: Sequence[Path], info: SourceInfo, *, stride: int = 1
) -> Iterator[FrameDetections]:
    """Yields the detections of each frame of successive files, with its gap and its time in frame intervals.

    `paths` are files like results.jsonl, `stride` is the difference of the indices of successive frames. The
    images are black. Raises UsageError if a file is missing or damaged, or does not follow the one before.
    """
    scanned = [(path, scan(path)) for path in paths]
    if not any(lines.line_count for _, lines in scanned):
        raise UsageError(f"{paths[0]} holds no results; name the folder of a run")
    mark, connection = GapMarker(info, window=1, policy="flush", stride=stride, cuts=False), 0
    last = -1
    for path, lines in scanned:
        records = read_records(path, lines.line_count)
        for record, result in zip(records, recorded_results(path, lines, info), strict=True):
            if result.frame.index <= last:
                raise UsageError(f"{path} begins with frame {result.frame.index}, after frame {last}")
            last = result.frame.index
            gap = recorded_gap(record)
            connection += gap is not None and gap.event == "reconnect"
            frame = mark(replace(result.frame, connection=connection))
            yield FrameDetections(replace(frame, gap=gap), result.detections, result.warmup, result.timings)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    return cli.run(parser(), work, arguments)


if __name__ == "__main__":
    sys.exit(main())
