"""Find and follow tiny moving targets in infrared video: `python run_pipeline.py in.mp4`."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

from pipeline import __version__
from pipeline.config.parsing import build, load_toml, override, parse_setting
from pipeline.config.schema import RunConfig
from pipeline.system import cli
from pipeline.system.errors import UsageError
from pipeline.system.progress import MODES

FLAGS = {
    "output": "output.folder",
    "overwrite": "output.overwrite",
    "resume": "output.resume",
    "detector": "detector.name",
    "weights": "detector.weights",
    "conf": "detector.conf",
    "iou": "detector.iou",
    "size": "detector.size",
    "enlarge": "detector.enlarge",
    "fit": "detector.fit",
    "device": "detector.device",
    "precision": "detector.precision",
    "compile": "detector.compile",
    "backend": "detector.backend",
    "batch": "detector.batch",
    "fuse": "segmentation.fuse",
    "tracker": "tracker.name",
    "start": "source.start",
    "max_frames": "source.max_frames",
    "hwaccel": "source.hwaccel",
    "source_format": "source.format",
    "source_size": "source.size",
    "source_dtype": "source.dtype",
    "source_rate": "source.rate",
    "source_bits": "source.bits",
    "scaling": "source.scaling",
    "bad_pixels": "source.bad_pixels",
    "offset": "source.offset",
    "timeout": "source.timeout",
    "on_full": "live.on_full",
    "reconnect": "live.reconnect",
    "on_gap": "live.on_gap",
    "health_port": "service.health_port",
    "health_host": "service.health_host",
    "save_video": "output.video",
    "save_coco": "output.coco",
    "save_mot": "output.mot",
    "save_jsonl": "output.jsonl",
    "save_zarr": "output.zarr",
    "rotate_every": "output.rotate_every",
    "rotate_size": "output.rotate_size",
    "disk_budget": "output.disk_budget",
}
"""Flag → the configuration key that it overrides."""


def parser() -> cli.Parser:
    """The command line. Flags that are not given leave the configuration as it is."""
    parser = cli.Parser(
        prog="run_pipeline.py",
        description="Find and follow tiny moving targets in infrared video. Writes an annotated video, COCO "
        "detections, MOT tracks and one JSON line a frame into one folder.",
        epilog="exit codes: 0 done, 1 anything else, 2 usage or configuration, 3 source cannot be opened or "
        "was lost, 4 weights missing or wrong, 5 output not writable, 130/143 interrupted",
        argument_default=argparse.SUPPRESS,
    )
    add = parser.add_argument
    kinds = "video file, folder or pattern of images, *.zarr, address (rtsp, http, …), camera number, -"
    add("source", metavar="SOURCE", nargs="?", help=kinds)
    add("--video", action="append", metavar="SOURCE", help="the same; repeatable: sources run together")
    add("--annotations", metavar="JSON", help="COCO-video ground truth of the source: adds metrics")
    add(
        "--output",
        metavar="DIR",
        help="folder for the outputs (default: runs/NAME); of several sources: DIR/NAME",
    )
    add("--overwrite", action="store_true", help="replace an earlier run in that folder")
    add("--resume", action="store_true", help="go on where the run in that folder stopped, if one did")
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
    add("--compile", action=argparse.BooleanOptionalAction, help="for a GPU, in minutes (default: no)")
    add("--backend", choices=("auto", "torch", "onnxruntime", "openvino"), help="what computes the network")
    add("--batch", type=int, metavar="N", help="frames computed together (default: 1; 8 for files on a GPU)")
    add("--start", type=int, metavar="N", help="index of the first frame (default: 0)")
    add("--max-frames", type=int, metavar="N", help="number of frames to process (default: 0, all)")
    _source_flags(parser)
    for name, what in (("video", "annotated.mp4"), ("coco", "detections.json"), ("mot", "tracks.txt")):
        add(f"--save-{name}", action=argparse.BooleanOptionalAction, help=f"write {what} (default: yes)")
    add("--save-jsonl", action=argparse.BooleanOptionalAction, help="write results.jsonl (default: yes)")
    arrays = "write results.zarr: frames, score maps, detections (default: no)"
    add("--save-zarr", action=argparse.BooleanOptionalAction, help=arrays)
    add("--rotate-every", metavar="TIME", help="begin new files after 30min, 1h, 1d, … (default: never)")
    add("--rotate-size", metavar="SIZE", help="begin new files at 500MB, … together (default: never)")
    add("--disk-budget", metavar="SIZE", help="delete the oldest such files beyond 20GB, … (default: none)")
    add("--health-port", type=int, metavar="N", help="answer /healthz and /metrics there (default: off)")
    add("--health-host", metavar="ADDRESS", help="interface to answer them on (default: 127.0.0.1)")
    add("--config", metavar="TOML", help="configuration file, see configs/default.toml")
    add("--set", action="append", metavar="A.B=VALUE", help="override one configuration key; repeatable")
    add("--progress", choices=MODES, help="how progress is shown (default: auto)")
    add("--list", action="store_true", help="list detectors, weights and trackers, and stop")
    add("--version", action="version", version=f"mote {__version__}")
    return parser


def _source_flags(parser: cli.Parser) -> None:
    """What frames are and how they are read."""
    add = parser.add_argument
    add("--hwaccel", choices=("none", "cuda"), help="what decodes video files (default: none, the CPU)")
    add("--source-format", metavar="FORMAT", help="raw, mpegts or y4m; raw needs the next two")
    add("--source-size", metavar="WxH", help="pixels of raw frames")
    add("--source-dtype", metavar="TYPE", help="samples of raw frames: uint8, uint16le or uint16be")
    add("--source-rate", type=float, metavar="N", help="frames/s of images, raw and zarr (default: 30)")
    add("--source-bits", type=int, metavar="N", help="bits that count where fewer than stored (default: all)")
    add("--scaling", metavar="HOW", help="levels for the networks (default: full-range)")
    add("--bad-pixels", metavar="MASK|auto", help="replace the light pixels of a mask, or single ones found")
    add("--offset", metavar="IMAGE", help="take off the unevenness that a picture of an even surface shows")
    add("--timeout", type=float, metavar="S", help="seconds until a silent stream is lost (default: 10)")
    full = ("auto", "wait", "drop-oldest", "drop-newest")
    add("--on-full", choices=full, help="frames without room (default: files wait, live drops the oldest)")
    add("--reconnect", metavar="N", help="attempts to open a lost stream again, none, forever (default: 10)")
    add("--on-gap", choices=("repeat", "flush"), help="a window with missing frames (default: repeat)")


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
    from detectors.networks.registry import canonical_segmenter

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


def locations(options: argparse.Namespace) -> list[str]:
    """The sources that are named: one alone, or each with `--video`. Raises UsageError."""
    alone, given = vars(options).get("source"), vars(options).get("video", [])
    kinds = "a video file, a folder of images, or a pattern of images"
    if alone is not None and given:
        raise UsageError(f"two sources are given, '{alone}' and --video '{given[0]}'; leave one out")
    given = given if alone is None else [alone]
    if not given:
        raise UsageError(f"a source is required: {kinds}; see --help")
    if not all(given):
        raise UsageError(f"the source is an empty text, expected {kinds}")
    return given


def listing() -> str:
    """What `--list` prints."""
    from detectors.networks.registry import DETECTORS, MMDET, SEGMENTERS
    from detectors.weights.zoo import ZOO_TABLE
    from trackers.registry import TRACKERS

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
    sources, config = locations(options), configuration(options)
    truth, progress = vars(options).get("annotations"), vars(options).get("progress", "auto")
    if len(sources) > 1:
        from pipeline.runner.multi import run_many

        summary = run_many(sources, config, annotations=truth, progress=progress)
        print(summary.table())
        for line in summary.complaints():
            print(f"error: {line}", file=sys.stderr)
        return summary.exit_code
    from pipeline.runner.single import run

    outcome = run(sources[0], config, annotations=truth, progress=progress)
    print(outcome.table())
    if outcome.failure:
        raise outcome.failure
    return outcome.exit_code


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return cli.run(parser(), work, arguments)


if __name__ == "__main__":
    sys.exit(main())
