"""The subcommands of `mote`."""

from __future__ import annotations

from typing import NamedTuple


class Command(NamedTuple):
    """A subcommand."""

    module: str
    """Module with the functions `parser` and `main`."""
    what: str
    """One line for the list of commands."""


COMMANDS = {
    "run": Command("run_pipeline", "find and follow targets in videos, images and live streams"),
    "track": Command("trackers.track", "track the detections of a finished run again, without the network"),
    "segment": Command("detectors.segment", "write the masks of a segmentation network for images"),
    "evaluate": Command("detectors.evaluate", "evaluate weights on a dataset"),
    "score": Command("pipeline.vid_map_coco", "compute COCO-style video mAP of result files"),
    "train": Command("detectors.train", "train a network"),
    "publish": Command("detectors.publish", "add trained weights to the zoo"),
    "export": Command("detectors.export", "export a network as ONNX graphs"),
    "check": Command("datasets.check", "inspect a dataset"),
    "convert": Command("datasets.convert", "convert a dataset to another layout"),
    "synthetic": Command("datasets.synthetic", "render a synthetic video with ground truth"),
    "recover": Command("pipeline.recover", "rebuild the outputs of a killed run"),
    "gallery": Command("pipeline.gallery", "put frames of annotated videos on one page"),
    "config": Command("mote.config", "print the configurations that come with the program"),
    "list": Command("mote.listing", "list detectors, weights and trackers"),
    "completion": Command("mote.completion", "print the completion script of a shell"),
}
"""Subcommands by name, in the order of the help."""
