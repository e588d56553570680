"""Pictures of an event: the target at its best, with an enlarged view, and the path of the track."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from pipeline.drawing.annotator import Annotator, AnnotatorOptions, colour_of
from pipeline.drawing.primitives import draw_outline, draw_text, polyline_fading, text_size
from pipeline.drawing.tone_mapping import ToneMapper
from pipeline.structures.detections import Detections
from pipeline.structures.frame import Frame
from pipeline.structures.rectangle import Rectangle
from pipeline.structures.results import Result
from pipeline.structures.tracks import Tracks
from pipeline.system.files import atomic_write

_JPEG_OPTIONS = [
    cv2.IMWRITE_JPEG_QUALITY,
    92,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,  # else the colour of lines of one pixel is blurred
]
_INSET_SHARE = 0.4
"""Side of the enlarged view as a share of the shorter side of the image."""
_TEXT = (235, 235, 235)


def draw_snapshot(frame: Frame, track: Tracks, classes: Sequence[str]) -> np.ndarray:
    """Draws one track over its frame, with an enlarged view if the target is small.

    Returns (H, W, 3) uint8 R, G, B, at the size of the frame.
    """
    names = tuple(classes) if len(classes) > 1 else ()
    options = AnnotatorOptions(
        trail=0, detections=False, insets=1, inset_share=_INSET_SHARE, class_names=names, status=True
    )
    return Annotator(options)(Result(frame, Detections.empty(), False, tracks=track))


def draw_path(frame: Frame, track: Tracks, path: np.ndarray, text: str) -> np.ndarray:
    """Draws the path of one track over a frame in which it was detected.

    Args:
        frame: the frame.
        track: the track in this frame, one row.
        path: (N, 2) x and y of its centre from its first to its last detection, in pixels of the frame.
        text: written in a corner.

    Returns:
        (H, W, 3) uint8 R, G, B, at the size of the frame.
    """
    image = ToneMapper()(frame)
    canvas = image.copy() if image.ndim == 3 else cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
    unit = max(1, round(min(frame.height, frame.width) / 480))
    colour, box = colour_of(int(track.ids[0])), Rectangle.around(track.boxes[0].tolist())
    polyline_fading(canvas, path, colour=colour, thickness=unit)
    target = box.slices()  # no line covers the target
    canvas[target] = image[target] if image.ndim == 3 else image[target][..., None]
    begin = Rectangle.around((*path[0], *path[0])).grown(unit)
    draw_outline(canvas, begin, margin=0, thickness=unit, colour=_TEXT, style="solid")
    draw_outline(canvas, box, margin=2 * unit, thickness=unit, colour=colour, style="solid")
    words = [(f"#{int(track.ids[0])}", colour), (text, _TEXT)]
    height, width = text_size(words, scale=unit)
    bottom = canvas.shape[0] - height - 2 * unit
    if bottom > 0 and width + 2 * unit < canvas.shape[1]:
        top = 2 * unit if box.bottom > canvas.shape[0] // 2 else bottom
        draw_text(canvas, words, left=2 * unit, top=top, scale=unit)
    return canvas


def write_picture(path: Path, image: np.ndarray) -> None:
    """Writes an image, (H, W, 3) uint8 R, G, B, as PNG or JPEG by the suffix. Raises OutputError."""
    options = _JPEG_OPTIONS if path.suffix == ".jpg" else []
    _, coded = cv2.imencode(path.suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    with atomic_write(path) as partial:
        partial.write_bytes(coded.tobytes())
