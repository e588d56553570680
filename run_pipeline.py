"""Finds and follows tiny moving targets in infrared video: `python run_pipeline.py in.mp4`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import __version__
from pipeline.config.options import FLAGS, add_detector_options, add_output_options, add_source_options
from pipeline.config.other_programs import OTHER_NAMES
from pipeline.config.parsing import build, load_toml, override, parse_setting
from pipeline.config.schema import RunConfig
from pipeline.system import cli
from pipeline.system.errors import UsageError
from pipeline.system.progress import MODES

if TYPE_CHECKING:
    from pipeline.runner.parts import Parts
    from pipeline.structures.protocols import Tracker


def parser() -> cli.Parser:
    """Builds the command line. A flag that is not given leaves the configuration unchanged."""
    parser = cli.Parser(
        prog="run_pipeline.py",
        description="Find and follow tiny moving targets in infrared video. Writes an annotated video, COCO "
        "detections, MOT tracks and one JSON line per frame to one folder.",
        epilog="exit codes: 0 success, 1 other error, 2 usage or configuration, 3 source cannot be opened or "
        "was lost, 4 weights missing or wrong, 5 output not writable, 129/130/143 interrupted",
        argument_default=argparse.SUPPRESS,
    )
    parser.other_names = OTHER_NAMES
    add = parser.add_argument
    kinds = "video file, folder or pattern of images, *.zarr, address (rtsp, http, …), camera number, -"
    add("source", metavar="SOURCE", nargs="?", help=kinds)
    add(
        "--video",
        "--source",
        dest="video",
        action="append",
        metavar="SOURCE",
        help="the same; repeatable: several sources run together",
    )
    add("--annotations", metavar="JSON", help="COCO-video ground truth of the source: adds metrics")
    add(
        "--annotated-as",
        metavar="NAME",
        help="video of the ground truth that shows the source (default: the one that has its name)",
    )
    add(
        "--output",
        metavar="DIR",
        help="output folder (default: runs/NAME); with several sources DIR/NAME for each",
    )
    add("--overwrite", action="store_true", help="replace an earlier run in the output folder")
    add(
        "--resume",
        action="store_true",
        help="resume an interrupted run in the output folder, if there is one",
    )
    add("--config", metavar="TOML", help="configuration file, see configs/default.toml")
    add("--set", action="append", metavar="A.B=VALUE", help="override a configuration key; repeatable")
    add("--progress", choices=MODES, help="display of the progress (default: auto)")
    add("--list", action="store_true", help="list detectors, weights and trackers, and exit")
    tested = "send a test message to each receiver of alarms and exit: 0, or 1 if one failed"
    add("--test-alarm", action="store_true", help=tested)
    add("--version", action="version", version=f"mote {__version__}")
    add_detector_options(parser.add_argument_group("detector, segmenters and tracker"))
    add_source_options(parser.add_argument_group("source"))
    add_output_options(parser.add_argument_group("outputs and service"))
    return parser


def typed_keys(options: argparse.Namespace) -> dict[str, str]:
    """Maps the keys that were given on the command line to what precedes their values there."""
    given = vars(options)
    keys = {".".join(parse_setting(text)[0]) for text in given.get("set", [])}
    typed = {key: f"--set {key}=" for key in sorted(keys)}
    flags = {key: f"--{flag.replace('_', '-')} " for flag, key in FLAGS.items() if flag in given}
    return typed | flags


def require_applicable(options: argparse.Namespace, config: RunConfig, sources: list[str]) -> None:
    """Raises UsageError for an option of the command line that would have no effect on any of the sources."""
    from detectors.networks.registry import kind_of
    from pipeline.config import applicability
    from pipeline.sources.opening import source_kind

    kinds = {location: source_kind(location, config.source) for location in sources}
    known = {location: kind for location, kind in kinds.items() if kind is not None}
    if len(known) == len(kinds):  # otherwise opening the others says what is wrong
        detector = kind_of(config.detector.name)
        applicability.require_applicable(typed_keys(options), config, known, detector=detector)


def configuration(options: argparse.Namespace) -> RunConfig:
    """Returns the defaults, overridden by the file, then by `--set`, then by flags. Raises UsageError."""
    given = vars(options)
    table = load_toml(Path(given["config"])) if "config" in given else {}
    settings = [parse_setting(text) for text in given.get("set", [])]
    settings += [(key.split("."), given[flag]) for flag, key in FLAGS.items() if flag in given]
    if "test_alarm" in given:  # which needs no rule of events
        settings.append((["events", "enabled"], True))
    table = override(table, settings)
    table = override(table, network_of_weights(table))
    if given.get("precision") == "half":
        table = override(table, [(["detector", "precision"], half_precision(table["detector"]))])
    if "segmenter" in given or "segmenter_weights" in given:
        rows = segmenter_rows(table, given.get("segmenter"), given.get("segmenter_weights", []))
        table = override(table, [(["segmentation", "segmenters"], rows)])
    return build(RunConfig, table, typed=typed_keys(options))


def network_of_weights(table: Mapping[str, Any]) -> list[tuple[list[str], str]]:
    """Returns the setting of the detector that supplied weights in a configuration are for.

    There is none if the weights are a file, or none are given. Raises UsageError if another detector is
    given.
    """
    detector = table.get("detector")
    if not isinstance(detector, Mapping) or not detector.get("weights"):
        return []
    from detectors.networks.registry import ALIASES, DETECTORS
    from detectors.weights.zoo import ZOO_TABLE, network_of

    name, weights = detector.get("name"), str(detector["weights"])
    if weights not in ZOO_TABLE or (name and str(name).lower() not in {*DETECTORS, *ALIASES}):
        return []  # building the configuration reports what is wrong
    return [(["detector", "name"], network_of(weights, name and str(name)))]


def require_rules(config: RunConfig) -> None:
    """Raises UsageError for a rule of events that names a class which supplied weights do not have.

    The classes of other weights are known when they are loaded.
    """
    if not any(rule.classes for rule in config.events.active_rules):
        return
    from detectors.networks.registry import canonical, kind_of
    from detectors.weights.zoo import ZOO_TABLE, default_weights
    from pipeline.events.rules import require_classes

    if kind_of(config.detector.name) != "detector":
        return
    known = default_weights(canonical(config.detector.name))
    entry = ZOO_TABLE.get(config.detector.weights or known or "")
    if entry:
        require_classes(config.events, entry.classes)


def half_precision(detector: Mapping[str, Any]) -> str:
    """Returns what `--half` means on the device of a table of the detector. Raises UsageError."""
    from detectors.backends.devices import pick_device

    return "bf16" if pick_device(str(detector.get("device", "auto"))).type == "cpu" else "fp16"


def segmenter_rows(table: dict, names: list[str] | None, weights: list[str]) -> list[dict]:
    """Returns the rows of `segmentation.segmenters` after the flags are applied.

    Args:
        table: the configuration so far.
        names: values of `--segmenter`; they replace the rows, and a name in both keeps its options.
        weights: values of `--segmenter-weights`, NAME=FILE.

    Raises UsageError if a value is malformed or names a segmenter that does not run.
    """
    from detectors.networks.registry import canonical_segmenter

    alone = override(table, [(["segmentation", "fuse"], "none")])  # valid without segmenters
    rows = [asdict(row) for row in build(RunConfig, alone).segmentation.segmenters]
    if names:
        known = {canonical_segmenter(row["name"]): row for row in rows}
        rows = [known.get(canonical_segmenter(name), {"name": name}) for name in names]
    for text in weights:
        name, _, file = text.partition("=")
        if not (name and file):
            raise UsageError(f"--segmenter-weights '{text}' is not of the form NAME=FILE")
        meant = [row for row in rows if canonical_segmenter(row["name"]) == canonical_segmenter(name)]
        if not meant:
            remedy = f"add --segmenter {name}, or use --weights for the detector"
            raise UsageError(f"--segmenter-weights '{text}': segmenter '{name}' does not run; {remedy}")
        meant[0]["weights"] = file
    return rows


def parts() -> Parts:
    """Returns the functions that make the networks and trackers of a run."""
    import trackers
    from detectors.inference.sizing import fit_to_memory
    from detectors.inference.tiling.streams import share
    from detectors.loading import load_detector, load_segmenters
    from pipeline.runner.parts import Parts

    def build_tracker(name: str, options: Mapping[str, Any]) -> Tracker:
        return trackers.build(name, **options)

    return Parts(load_detector, load_segmenters, build_tracker, share, fit_to_memory)


def locations(options: argparse.Namespace) -> list[str]:
    """Returns the sources: one positional argument, or the values of `--video`. Raises UsageError."""
    alone, given = vars(options).get("source"), vars(options).get("video", [])
    kinds = "a video file, a folder of images, or a pattern of images"
    if alone is not None and given:
        raise UsageError(f"two sources are given, '{alone}' and --video '{given[0]}'; leave one out")
    given = given if alone is None else [alone]
    if not given:
        behind = "; write it before --classes, which takes all that follows" if "classes" in options else ""
        raise UsageError(f"a source is required: {kinds}{behind}; see --help")
    if not all(given):
        raise UsageError(f"the source is an empty text, expected {kinds}")
    return given


def listing() -> str:
    """Returns the text of `--list`."""
    from detectors.networks.registry import DETECTORS, MMDET, SEGMENTERS
    from detectors.weights.zoo import ZOO_TABLE
    from trackers.registry import TRACKERS

    lines = ["detectors", *(f"  {name}" for name in DETECTORS)]
    lines += [
        f"  {MMDET}CONFIG.py: any detector of mmdet 3; its configuration is a Python program and is run"
    ]
    lines += ["segmenters, as the detector or beside one", *(f"  {name}" for name in SEGMENTERS)]
    lines += ["weights"]
    lines += [f"  {name}: for {entry.detector}, {entry.note}" for name, entry in ZOO_TABLE.items()]
    lines += ["trackers", *(f"  {name}" for name in TRACKERS)]
    kept = "python -m detectors.export --list-cache shows those that are kept, --clear-cache removes them"
    return "\n".join([*lines, "graphs of networks for other runtimes", f"  {kept}"])


def try_alarms(config: RunConfig) -> int:
    """Sends a test message to each receiver of alarms and prints what happened; returns the exit code."""
    from pipeline.alarms.opening import try_receivers

    code = 0
    for trial in try_receivers(config.alarms):
        took = f"{1e3 * trial.seconds:.0f} ms"
        failed = trial.failure is not None
        print(
            f"{trial.receiver}: "
            + (f"failed after {took}: {trial.failure}" if failed else f"delivered in {took}")
        )
        code = 1 if failed else code
    return code


def work(options: argparse.Namespace) -> int:
    """Runs the pipeline or lists its parts; returns the exit code. Raises MoteError if a run ended early."""
    if "list" in options:
        print(listing())
        return 0
    if "test_alarm" in options:
        return try_alarms(configuration(options))
    sources, config = locations(options), configuration(options)
    require_applicable(options, config, sources)
    require_rules(config)
    truth, progress = vars(options).get("annotations"), vars(options).get("progress", "auto")
    if len(sources) > 1:
        from pipeline.runner.multi import run_many

        summary = run_many(sources, config, parts(), annotations=truth, progress=progress)
        print(summary.table())
        for line in summary.complaints():
            cli.print_error(line)
        return summary.exit_code
    from pipeline.runner.single import run
    from pipeline.runner.summary import run_table

    record = run(sources[0], config, parts(), annotations=truth, progress=progress)
    print(run_table(record))
    if record.failure:
        raise record.failure
    return record.exit_code


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    return cli.run(parser(), work, arguments)


if __name__ == "__main__":
    sys.exit(main())
