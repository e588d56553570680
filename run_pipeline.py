"""Find and follow tiny moving targets in infrared video: `python run_pipeline.py in.mp4`."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

from pipeline import __version__, command
from pipeline.config import RunConfig
from pipeline.errors import UsageError
from pipeline.progress import MODES
from pipeline.settings import build, load_toml, override, parse_setting

FLAGS = {
    "output": "output.folder",
    "overwrite": "output.overwrite",
    "detector": "detector.name",
    "weights": "detector.weights",
    "conf": "detector.conf",
    "iou": "detector.iou",
    "size": "detector.size",
    "enlarge": "detector.enlarge",
    "fit": "detector.fit",
    "device": "detector.device",
    "precision": "detector.precision",
    "batch": "detector.batch",
    "fuse": "segmentation.fuse",
    "tracker": "tracker.name",
    "start": "source.start",
    "max_frames": "source.max_frames",
    "save_video": "output.video",
    "save_coco": "output.coco",
    "save_mot": "output.mot",
    "save_jsonl": "output.jsonl",
}
"""Flag → the configuration key that it overrides."""


def parser() -> command.Parser:
    """The command line. Flags that are not given leave the configuration as it is."""
    parser = command.Parser(
        prog="run_pipeline.py",
        description="Find and follow tiny moving targets in infrared video. Writes an annotated video, COCO "
        "detections, MOT tracks and one JSON line a frame into one folder.",
        epilog="exit codes: 0 done, 1 anything else, 2 usage or configuration, 3 source cannot be opened or "
        "was lost, 4 weights missing or wrong, 5 output not writable, 130/143 interrupted",
        argument_default=argparse.SUPPRESS,
    )
    add = parser.add_argument
    add("source", metavar="SOURCE", nargs="?", help="video file, folder of images, or pattern of images")
    add("--video", metavar="SOURCE", help="the source, as an option")
    add("--annotations", metavar="JSON", help="COCO-video ground truth of the source: adds metrics")
    add("--output", metavar="DIR", help="folder for the outputs (default: runs/NAME)")
    add("--overwrite", action="store_true", help="replace an earlier run in that folder")
    add("--detector", metavar="NAME", help="network, see --list (default: tridos-nano)")
    add("--weights", metavar="NAME|FILE", help="weights, see --list (default: the detector's own)")
    add("--segmenter", action="append", metavar="NAME", help="mark pixels beside the detector; repeatable")
    add("--segmenter-weights", action="append", metavar="NAME=FILE", help="weights of one; repeatable")
    add(
        "--fuse", choices=("none", "confirm", "union"), help="use of its marks for detections (default: none)"
    )
    add("--tracker", metavar="NAME", help="tracker, see --list (default: centre)")
    add("--conf", type=float, metavar="SCORE", help="least score of a detection, 0 to 1 (default: 0.05)")
    add("--iou", type=float, metavar="IOU", help="overlap above which the better box is kept (default: 0.5)")
    add("--size", metavar="WxH", help="network input (default: native, every pixel as it is)")
    add("--enlarge", type=float, metavar="N", help="enlarge a native input (default: as the weights learned)")
    add("--fit", choices=("letterbox", "stretch"), help="how frames fill a size of WxH (default: letterbox)")
    add("--device", metavar="DEVICE", help="auto, cpu, cuda or cuda:N (default: auto)")
    add("--precision", choices=("fp32", "bf16", "fp16"), help="number format of the network (default: fp32)")
    add("--batch", type=int, metavar="N", help="frames computed together (default: 1 on a CPU, 8 on a GPU)")
    add("--start", type=int, metavar="N", help="index of the first frame (default: 0)")
    add("--max-frames", type=int, metavar="N", help="number of frames to process (default: 0, all)")
    for name, what in (("video", "annotated.mp4"), ("coco", "detections.json"), ("mot", "tracks.txt")):
        add(f"--save-{name}", action=argparse.BooleanOptionalAction, help=f"write {what} (default: yes)")
    add("--save-jsonl", action=argparse.BooleanOptionalAction, help="write results.jsonl (default: yes)")
    add("--config", metavar="TOML", help="configuration file, see configs/default.toml")
    add("--set", action="append", metavar="A.B=VALUE", help="override one configuration key; repeatable")
    add("--progress", choices=MODES, help="how progress is shown (default: auto)")
    add("--list", action="store_true", help="list detectors, weights and trackers, and stop")
    add("--version", action="version", version=f"mote {__version__}")
    return parser


def configuration(options: argparse.Namespace) -> RunConfig:
    """Defaults, then the file, then `--set`, then flags. Raises UsageError."""
    given = vars(options)
    table = load_toml(Path(given["config"])) if "config" in given else {}
    settings = [parse_setting(text) for text in given.get("set", [])]
    settings += [(key.split("."), given[flag]) for flag, key in FLAGS.items() if flag in given]
    table = override(table, settings)
    if "segmenter" in given or "segmenter_weights" in given:
        rows = segmenter_rows(table, given.get("segmenter"), given.get("segmenter_weights", []))
        table = override(table, [(["segmentation", "segmenters"], rows)])
    return build(RunConfig, table)


def segmenter_rows(table: dict, names: list[str] | None, weights: list[str]) -> list[dict]:
    """The rows of `segmentation.segmenters` that the flags ask for.

    Names, where there are any, replace those of the table; one that is in both keeps its options. Weights are
    NAME=FILE of segmenters that run. Raises UsageError.
    """
    from detectors import canonical_segmenter

    alone = override(table, [(["segmentation", "fuse"], "none")])  # which needs no segmenters yet
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
            raise UsageError(f"--segmenter-weights '{text}': no segmenter '{name}' is to run; {remedy}")
        meant[0]["weights"] = file
    return rows


def location(options: argparse.Namespace) -> str:
    """The source that is named, once, with or without `--video`. Raises UsageError."""
    given = [vars(options)[name] for name in ("source", "video") if name in options]
    kinds = "a video file, a folder of images, or a pattern of images"
    if len(given) > 1:
        raise UsageError(f"two sources are given, '{given[0]}' and --video '{given[1]}'; leave one out")
    if not given:
        raise UsageError(f"a source is required: {kinds}; see --help")
    if not given[0]:
        raise UsageError(f"the source is an empty text, expected {kinds}")
    return given[0]


def listing() -> str:
    """What `--list` prints."""
    from detectors import DETECTORS, MMDET, SEGMENTERS
    from detectors.weights import ZOO_TABLE
    from trackers import TRACKERS

    lines = ["detectors", *(f"  {name}" for name in DETECTORS)]
    lines += [f"  {MMDET}CONFIG.py: any of mmdet 3 by its configuration, a Python program that is run"]
    lines += ["segmenters, by themselves as a detector or beside one", *(f"  {name}" for name in SEGMENTERS)]
    lines += ["weights"]
    lines += [f"  {name}: for {entry.detector}, {entry.note}" for name, entry in ZOO_TABLE.items()]
    return "\n".join([*lines, "trackers", *(f"  {name}" for name in TRACKERS)])


def work(options: argparse.Namespace) -> int:
    """What the options ask for. Raises MoteError for what ended a run early, too."""
    if "list" in options:
        print(listing())
        return 0
    source, config = location(options), configuration(options)
    from pipeline.runner import run

    given = vars(options)
    progress = given.get("progress", "auto")
    outcome = run(source, config, annotations=given.get("annotations"), progress=progress)
    print(outcome.table())
    if outcome.failure:
        raise outcome.failure
    return outcome.exit_code


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return command.run(parser(), work, arguments)


if __name__ == "__main__":
    sys.exit(main())
