"""The picture for people: boxes around targets, never on them, with trails, names and enlarged views.

A target of three pixels vanishes under an ordinary overlay. Here every line keeps its distance from the
pixels that a track's box touches; text, trails and enlarged views make way for them. Contours of segmenters
lie inside boxes, but on no pixel that a segmenter marked.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from pipeline.drawing.contours import contour_colour, draw_contours, spared
from pipeline.drawing.insets import Inset, InsetLayout, Mark
from pipeline.drawing.primitives import (
    Colour,
    Style,
    label_position,
    outline,
    polyline_fading,
    text_size,
    write,
)
from pipeline.drawing.tone_mapping import ToneMapper
from pipeline.structures.detections import Detections
from pipeline.structures.rectangle import Rectangle
from pipeline.structures.results import Result
from pipeline.structures.tracks import Tracks, TrackState

PALETTE = (
    (255, 200, 0),
    (0, 210, 255),
    (255, 70, 150),
    (120, 240, 60),
    (165, 125, 255),
    (255, 125, 30),
    (0, 225, 165),
    (255, 70, 60),
    (80, 150, 255),
    (215, 240, 80),
    (240, 110, 255),
    (255, 170, 140),
)
"""R, G, B by track id: all saturated, so that none is mistaken for the grey picture; neighbours contrast."""

_TENTATIVE = (165, 165, 165)
_LOOSE = (225, 225, 225)
_TEXT = (235, 235, 235)
_EDGE = (12, 12, 12)


@dataclass(frozen=True)
class AnnotatorOptions:
    """What is drawn. Lengths grow with the frame: a unit is 1 pixel below 720 rows, 2 at 1080, 4 at 2160."""

    trail: int = 45
    """Frames that a track's path goes back; 0 draws none."""
    labels: bool = True
    """Write each believed track's number and score beside it."""
    class_names: tuple[str, ...] = ()
    """Class names by label, written after the track's number; empty where there is one class."""
    detections: bool = True
    """Mark detections that belong to no track."""
    contours: bool = True
    """Outline what segmenters marked, in a colour for each, and name them in a corner."""
    min_score: float = 0.4
    """Least score of a detection that is marked; tracks are drawn whatever their score."""
    margin: int = 2
    """Units between the pixels of a box and the line around it."""
    insets: int = 3
    """Enlarged views of small targets at most; 0 draws none."""
    inset_zoom: int = 4
    """Display pixels per source pixel in a view, at most; larger targets are enlarged less."""
    inset_share: float = 0.28
    """Side of a view as a share of the picture's shorter side."""
    inset_interpolation: Literal["cubic", "nearest"] = "cubic"
    """How source pixels are enlarged: smooth, or as the squares that they are."""
    status: bool = False
    """Write frame number and time into a corner."""

    def __post_init__(self):
        for name in ("trail", "margin", "insets"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} = {getattr(self, name)}, expected 0 or more")
        if self.inset_zoom < 2:
            raise ValueError(f"{self.inset_zoom = }, expected 2 or more")
        if not 0 < self.inset_share <= 0.5:
            raise ValueError(f"{self.inset_share = }, expected above 0 and at most 0.5")
        if self.inset_interpolation not in ("cubic", "nearest"):
            raise ValueError(f"{self.inset_interpolation = }, expected 'cubic' or 'nearest'")


class Annotator:
    """Draws results, one after the other, of one source.

    It remembers the paths of living tracks, the places of the enlarged views and the tone of the scene;
    `reset` forgets all three.
    """

    def __init__(self, options: AnnotatorOptions | None = None):
        self.options = options or AnnotatorOptions()
        self._tone = ToneMapper()
        self._layout = InsetLayout(
            count=self.options.insets, zoom=self.options.inset_zoom, share=self.options.inset_share
        )
        self._trails: dict[int, deque[tuple[float, float]]] = {}

    def reset(self) -> None:
        """Begin a new source."""
        self._tone.reset()
        self._layout.reset()
        self._trails.clear()

    def __call__(self, result: Result) -> np.ndarray:
        """Draw one result: (H, W, 3) uint8 R, G, B at source resolution; the frame's image is only read."""
        options = self.options
        picture = self._tone(result.frame)
        canvas = picture.copy() if picture.ndim == 3 else cv2.cvtColor(picture, cv2.COLOR_GRAY2RGB)
        height, width = picture.shape[:2]
        unit = max(1, round(min(height, width) / 480))
        margin, reach = options.margin * unit, (options.margin + 1) * unit
        marks = [m for m in _marks(result.tracks) if _meets(m.box, width, height)]
        loose = []
        if options.detections:
            believed = result.detections.scores >= options.min_score
            loose = _loose(result.detections[believed], result.tracks)

        self._remember(result.tracks)
        self._draw_trails(canvas, marks, unit)
        for mark in marks:  # a trail leads to its target, not over it
            where = mark.box.slices()
            canvas[where] = picture[where] if picture.ndim == 3 else picture[where][..., None]
        masks = [found.regions > 0 for found in result.segments.values()] if options.contours else []
        if masks:
            draw_contours(canvas, masks, spare=spared(masks), thickness=max(1, unit // 2))
        for box in loose:
            outline(canvas, box, margin=margin, thickness=max(1, unit // 2), colour=_LOOSE, style="corners")
        for mark in marks:
            _draw_box(canvas, mark, margin=margin, unit=unit)

        insets = self._layout.arrange(
            marks, loose=loose, width=width, height=height, clearance=2 * (reach + unit)
        )
        for inset in insets:
            self._draw_inset(canvas, picture, inset, masks, unit)
        occupied = [mark.box.grown(reach) for mark in marks] + [inset.place for inset in insets]
        if options.labels:
            occupied += self._draw_labels(canvas, marks, occupied=occupied, reach=reach, unit=unit)
        self._draw_status(canvas, result, occupied=occupied, unit=unit)
        return canvas

    def _remember(self, tracks: Tracks) -> None:
        """Add the centres of this frame; forget tracks that are gone."""
        if not self.options.trail:
            return
        trails = {}
        centres = (tracks.boxes[:, :2] + tracks.boxes[:, 2:]) / 2
        for track_id, centre in zip(tracks.ids.tolist(), centres.tolist(), strict=True):
            trail = self._trails.get(track_id)
            trails[track_id] = deque(maxlen=self.options.trail) if trail is None else trail
            trails[track_id].append(tuple(centre))
        self._trails = trails

    def _draw_trails(self, canvas: np.ndarray, marks: Iterable[Mark], unit: int) -> None:
        for mark in marks:
            if mark.id in self._trails and mark.state != TrackState.TENTATIVE:
                polyline_fading(canvas, np.array(self._trails[mark.id]), colour=mark.colour, thickness=unit)

    def _draw_inset(
        self, canvas: np.ndarray, picture: np.ndarray, inset: Inset, masks: Sequence[np.ndarray], unit: int
    ) -> None:
        left, top, right, bottom = inset.place
        side, zoom, (x, y) = right - left, inset.zoom, inset.mark.centre
        # sub-pixel: the target rests in the middle of its view while the background moves
        shift = zoom / 2 + side / 2 - 0.5
        matrix = np.array([[zoom, 0, shift - zoom * x], [0, zoom, shift - zoom * y]], np.float64)

        def enlarged(image: np.ndarray, how: int, border: int) -> np.ndarray:
            return cv2.warpAffine(image, matrix, (side, side), flags=how, borderMode=border)

        smooth = self.options.inset_interpolation == "cubic"
        how = cv2.INTER_CUBIC if smooth else cv2.INTER_NEAREST
        view = canvas[top:bottom, left:right]
        view[:] = enlarged(picture, how, cv2.BORDER_REPLICATE).reshape(side, side, -1)
        if masks:
            planes = (mask.astype(np.uint8) for mask in (spared(masks), *masks))
            spare, *near = (enlarged(p, cv2.INTER_NEAREST, cv2.BORDER_CONSTANT) > 0 for p in planes)
            draw_contours(view, near, spare=spare, thickness=max(1, unit // 2))
        inner = inset.place.grown(-unit)
        outline(canvas, inner, margin=0, thickness=unit, colour=_EDGE, style="solid")
        inner, colour = inner.grown(-unit), inset.mark.colour
        outline(canvas, inner, margin=0, thickness=unit, colour=colour, style=_style(inset.mark))
        corner = inner.grown(-unit)
        write(canvas, [(f"#{inset.mark.id}", colour)], left=corner.left, top=corner.top, scale=unit)

    def _draw_labels(
        self,
        canvas: np.ndarray,
        marks: Iterable[Mark],
        *,
        occupied: Sequence[Rectangle],
        reach: int,
        unit: int,
    ) -> list[Rectangle]:
        """Write beside each believed track, where there is room; return the places written to."""
        written: list[Rectangle] = []
        for mark in sorted(marks, key=lambda mark: (mark.state != TrackState.CONFIRMED, -mark.score)):
            if mark.state == TrackState.TENTATIVE:
                continue
            words = self._words(mark)
            height, width = text_size(words, scale=unit)
            place = label_position(
                mark.box.grown(reach),
                height=height,
                width=width,
                occupied=[*occupied, *written],
                canvas=canvas,
            )
            if place is not None:
                written.append(place)
                write(canvas, words, left=place.left, top=place.top, scale=unit)
        return written

    def _words(self, mark: Mark) -> list[tuple[str, Colour]]:
        """The label's words with their colours; a predicted position has no score of its own."""
        words = [(f"#{mark.id}", mark.colour)]
        if 0 <= mark.label < len(self.options.class_names):
            words.append((str(self.options.class_names[mark.label]), _TEXT))
        if mark.state == TrackState.CONFIRMED:
            words.append((f"{mark.score:.2f}".removeprefix("0"), _TEXT))
        return words

    def _draw_status(
        self, canvas: np.ndarray, result: Result, *, occupied: Sequence[Rectangle], unit: int
    ) -> None:
        words = []
        if self.options.status:
            words += [(str(result.frame.index), _TEXT), (f"{float(result.frame.pts):.2f}s", _TENTATIVE)]
        if result.warmup:
            words.append(("warm-up", _TENTATIVE))
        if self.options.contours:
            words += [(name, contour_colour(place)) for place, name in enumerate(result.segments)]
        if not words:
            return
        (height, width), (down, across) = canvas.shape[:2], text_size(words, scale=unit)
        edge = 2 * unit
        low, far = height - edge - down, width - edge - across
        if low < edge or far < edge:  # the picture is smaller than the words
            return
        for x, y in ((edge, low), (far, low), (edge, edge), (far, edge)):
            place = Rectangle(x, y, x + across, y + down)
            if x >= 0 and y >= 0 and all(place.gap(other) >= 0 for other in occupied):
                write(canvas, words, left=x, top=y, scale=unit)
                return


def colour_of(track_id: int) -> Colour:
    """R, G, B of a track, the same as long as it lives."""
    return PALETTE[(track_id - 1) % len(PALETTE)]


def _marks(tracks: Tracks) -> list[Mark]:
    columns = (tracks.ids, tracks.boxes, tracks.state, tracks.scores, tracks.labels, tracks.age)
    return [
        Mark(
            id=track_id,
            box=Rectangle.around(box),
            centre=((box[0] + box[2]) / 2, (box[1] + box[3]) / 2),
            state=TrackState(state),
            score=score,
            label=label,
            age=age,
            colour=colour_of(track_id),
        )
        for track_id, box, state, score, label, age in zip(*(c.tolist() for c in columns), strict=True)
    ]


def _style(mark: Mark) -> Style:
    return "dashed" if mark.state == TrackState.COASTING else "solid"


def _draw_box(canvas: np.ndarray, mark: Mark, *, margin: int, unit: int) -> None:
    tentative = mark.state == TrackState.TENTATIVE
    thickness = max(1, unit // 2) if tentative else unit
    colour = _TENTATIVE if tentative else mark.colour
    outline(canvas, mark.box, margin=margin, thickness=thickness, colour=colour, style=_style(mark))


def _loose(detections: Detections, tracks: Tracks) -> list[Rectangle]:
    """The detections whose centre lies in no track that was seen in this frame."""
    boxes = detections.boxes
    if not len(boxes):
        return []
    seen = tracks.boxes[tracks.state != TrackState.COASTING]
    centres = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2  # (N, 1, 2)
    near = np.maximum(2.0, (seen[:, 2:] - seen[:, :2]) / 4)  # filtered boxes trail a little behind
    joined = ((centres >= seen[:, :2] - near) & (centres <= seen[:, 2:] + near)).all(-1).any(-1)
    return [Rectangle.around(box) for box in boxes[~joined].tolist()]


def _meets(box: Rectangle, width: int, height: int) -> bool:
    return box.left < width and box.top < height and box.right > 0 and box.bottom > 0
