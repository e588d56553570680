"""Options of other programs, for those who know their names."""

from __future__ import annotations

OTHER_NAMES = {
    "--agnostic-nms": "--iou (of each class)",
    "--conf-thres": "--conf",
    "--confidence-threshold": "--conf",
    "--exist-ok": "--overwrite",
    "--imgsz": "--size",
    "--img-size": "--size",
    "--iou-thres": "--iou",
    "--iou-threshold": "--iou",
    "--model": "--detector or --weights",
    "--name": "--output",
    "--nosave": "--no-save-video",
    "--project": "--output",
    "--save-txt": "--save-mot",
    "--show": "--save-video (writes annotated.mp4)",
    "--source-video-path": "--source",
    "--target-video-path": "--output",
    "--threads": "--set detector.threads=N",
    "--threshold": "--conf",
    "--tracking-method": "--tracker",
    "--vid-stride": "--stride",
    "--yolo-model": "--detector or --weights",
}
"""Options of ultralytics, supervision and boxmot → their names here."""
