"""Options of the command `run` and the keys of the configuration that they stand for."""

from __future__ import annotations

import argparse

FLAGS = {
    "output": "output.folder",
    "overwrite": "output.overwrite",
    "resume": "output.resume",
    "detector": "detector.name",
    "weights": "detector.weights",
    "conf": "detector.conf",
    "classes": "detector.classes",
    "iou": "detector.iou",
    "size": "detector.size",
    "enlarge": "detector.enlarge",
    "fit": "detector.fit",
    "tile": "detector.tile",
    "tile_overlap": "detector.tile_overlap",
    "roi": "detector.roi",
    "device": "detector.device",
    "precision": "detector.precision",
    "compile": "detector.compile",
    "backend": "detector.backend",
    "batch": "detector.batch",
    "fuse": "segmentation.fuse",
    "tracker": "tracker.name",
    "camera_motion": "tracker.camera_motion",
    "events": "events.enabled",
    "start": "source.start",
    "end": "source.end",
    "stride": "source.stride",
    "max_frames": "source.max_frames",
    "hwaccel": "source.hwaccel",
    "source_stream": "source.stream",
    "source_format": "source.format",
    "source_size": "source.size",
    "source_dtype": "source.dtype",
    "source_rate": "source.rate",
    "source_bits": "source.bits",
    "scaling": "source.scaling",
    "bad_pixels": "source.bad_pixels",
    "offset": "source.offset",
    "timeout": "source.timeout",
    "annotated_as": "source.annotated_as",
    "on_full": "live.on_full",
    "reconnect": "live.reconnect",
    "on_gap": "live.on_gap",
    "max_rate": "live.max_rate",
    "health_port": "service.health_port",
    "health_host": "service.health_host",
    "save_video": "output.video",
    "save_coco": "output.coco",
    "save_mot": "output.mot",
    "save_coasting": "output.coasting",
    "smooth": "output.smooth",
    "save_jsonl": "output.jsonl",
    "save_zarr": "output.zarr",
    "rotate_every": "output.rotate_every",
    "rotate_size": "output.rotate_size",
    "disk_budget": "output.disk_budget",
}
"""Maps each flag to the configuration key that it overrides."""


def frame_or_text(value: str) -> int | str:
    """Returns the index of a frame as int; other texts, such as times, as they are."""
    try:
        return int(value)
    except ValueError:
        return value


def add_detector_options(group: argparse._ArgumentGroup) -> None:
    """Adds the flags of the networks and of the tracker."""
    add = group.add_argument
    add("--detector", metavar="NAME", help="detection network, see --list (default: tridos-nano)")
    add("--weights", metavar="NAME|FILE", help="weights, see --list (default: the detector's own)")
    add(
        "--segmenter",
        action="append",
        metavar="NAME",
        help="segmentation network that runs beside the detector; repeatable",
    )
    add(
        "--segmenter-weights", action="append", metavar="NAME=FILE", help="weights of a segmenter; repeatable"
    )
    add(
        "--fuse", choices=("none", "confirm", "union"), help="how masks change the detections (default: none)"
    )
    add("--tracker", metavar="NAME", help="tracker, see --list (default: centre)")
    moves = "estimate the motion of the camera for the tracker (default: auto)"
    add("--camera-motion", choices=("auto", "off"), help=moves)
    add("--conf", type=float, metavar="SCORE", help="minimum score of a detection, 0 to 1 (default: 0.05)")
    classes = "keep the detections of these classes alone: names or numbers from 0 (default: all)"
    add("--classes", nargs="+", action="extend", metavar="NAME|NUMBER", help=classes)
    add("--iou", type=float, metavar="IOU", help="IoU threshold of non-maximum suppression (default: 0.5)")
    add("--size", metavar="WxH", help="size of the network input (default: native, that of the frames)")
    add(
        "--enlarge",
        type=float,
        metavar="N",
        help="factor by which a native input is enlarged (default: that of the training)",
    )
    add("--fit", choices=("letterbox", "stretch"), help="how frames fill a WxH input (default: letterbox)")
    tile = "divide the frame into tiles of this size; auto: if the memory does not suffice (default: auto)"
    add("--tile", metavar="WxH|auto|none", help=tile)
    add("--tile-overlap", type=int, metavar="N", help="pixels that tiles share at least (default: 64)")
    region = "look for targets only here: pixels or shares, or corners 'X,Y X,Y X,Y'; repeatable"
    add("--roi", action="append", metavar="X,Y,W,H", help=region)
    add("--device", metavar="DEVICE", help="auto, cpu, mps, cuda or cuda:N (default: auto)")
    add("--precision", choices=("fp32", "bf16", "fp16"), help="number format of the network (default: fp32)")
    half = "the same as --precision fp16 on a GPU and bf16 on a CPU"
    add("--half", dest="precision", action="store_const", const="half", help=half)
    add(
        "--compile",
        action=argparse.BooleanOptionalAction,
        help="compile the network for a GPU; takes minutes (default: no)",
    )
    add(
        "--backend",
        choices=("auto", "torch", "onnxruntime", "openvino"),
        help="runtime of the network (default: auto)",
    )
    add("--batch", type=int, metavar="N", help="frames per batch (default: 1; 8 for files on a GPU)")


def add_source_options(group: argparse._ArgumentGroup) -> None:
    """Adds the flags of the source: format, corrections, live behaviour."""
    add = group.add_argument
    place = "N|TIME"
    start = "first frame: its index, or a time such as 12.5s or 1:30 (default: 0)"
    add("--start", type=frame_or_text, metavar=place, help=start)
    end = "first frame that is not processed any more: its index or a time (default: 0, none)"
    add("--end", type=frame_or_text, metavar=place, help=end)
    stride = "process every N-th frame; indices and times stay those of the source (default: 1)"
    add("--stride", type=int, metavar="N", help=stride)
    add("--max-frames", type=int, metavar="N", help="number of frames to process (default: 0, all)")
    add("--hwaccel", choices=("none", "cuda"), help="decoder of video files (default: none, the CPU)")
    add(
        "--source-stream",
        type=int,
        metavar="N",
        help="video stream to read, of a video that has several, from 1 (default: the first)",
    )
    add("--source-format", metavar="FORMAT", help="raw, mpegts or y4m; raw needs size and dtype")
    add("--source-size", metavar="WxH", help="frame size of raw video")
    add("--source-dtype", metavar="TYPE", help="sample type of raw video: uint8, uint16le or uint16be")
    add(
        "--source-rate",
        type=float,
        metavar="N",
        help="frame rate of images, raw video and zarr (default: 30)",
    )
    add(
        "--source-bits",
        type=int,
        metavar="N",
        help="significant bits per sample, if fewer than stored (default: all)",
    )
    levels = "levels that become 0 and 1: full-range, 'fixed LO HI', percentile or running (default: auto)"
    add("--scaling", metavar="HOW", help=levels)
    add("--bad-pixels", metavar="MASK|auto", help="replace bad pixels: white in MASK, or detected (auto)")
    add("--offset", metavar="IMAGE", help="subtract the fixed-pattern offset shown by a flat-field image")
    add(
        "--timeout", type=float, metavar="S", help="seconds without data until a stream is lost (default: 10)"
    )
    full = ("auto", "wait", "drop-oldest", "drop-newest")
    add(
        "--on-full",
        choices=full,
        help="policy if the frame queue is full (default: files wait, live drops the oldest)",
    )
    add(
        "--reconnect",
        metavar="N",
        help="attempts to reopen a lost stream: a number, none or forever (default: 10)",
    )
    rate = "process at most N frames per second of a live source, and skip the others (default: 0, all)"
    add("--max-rate", type=float, metavar="N", help=rate)
    add(
        "--on-gap",
        choices=("repeat", "flush"),
        help="policy if frames are missing in a window (default: repeat)",
    )


def add_output_options(group: argparse._ArgumentGroup) -> None:
    """Adds the flags of the outputs: which files, their rotation, health and metrics."""
    add = group.add_argument
    for name, what in (("video", "annotated.mp4"), ("coco", "detections.json"), ("mot", "tracks.txt")):
        add(f"--save-{name}", action=argparse.BooleanOptionalAction, help=f"write {what} (default: yes)")
    coasting = "write predicted boxes to tracks.txt, too (default: no)"
    add("--save-coasting", action=argparse.BooleanOptionalAction, help=coasting)
    smooth = "replace tracks.txt by smoothed tracks at the end; for recordings (default: no)"
    add("--smooth", action=argparse.BooleanOptionalAction, help=smooth)
    add("--save-jsonl", action=argparse.BooleanOptionalAction, help="write results.jsonl (default: yes)")
    arrays = "write frames, score maps and detections to results.zarr (default: no)"
    add("--save-zarr", action=argparse.BooleanOptionalAction, help=arrays)
    add("--rotate-every", metavar="TIME", help="start new files after 30min, 1h, 1d, … (default: never)")
    add("--rotate-size", metavar="SIZE", help="start new files at a total of 500MB, … (default: never)")
    add(
        "--disk-budget",
        metavar="SIZE",
        help="delete the oldest rotated files above 20GB, … (default: no limit)",
    )
    told = "write events.jsonl, without rules for each target of 0.5 s (default: if there are rules)"
    add("--events", action=argparse.BooleanOptionalAction, help=told)
    add("--health-port", type=int, metavar="N", help="port that serves /healthz and /metrics (default: off)")
    add("--health-host", metavar="ADDRESS", help="address to serve them on (default: 127.0.0.1)")
