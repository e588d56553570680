"""Draws results over their frames: boxes around targets, trails, labels, contours and insets.

A target of three pixels disappears under an ordinary overlay. Here every line keeps a distance from the
pixels that the box of a track touches; text, trails and insets leave them visible. Contours of segmentation
masks may lie inside boxes, but cover no pixel of a mask.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from pipeline.config.ranges import require_range
from pipeline.drawing.contours import contour_colour, draw_contours, protected_pixels
from pipeline.drawing.insets import Inset, InsetLayout, Mark
from pipeline.drawing.places import Outline, draw_places
from pipeline.drawing.primitives import (
    Colour,
    Occupancy,
    Style,
    draw_outline,
    draw_text,
    label_position,
    polyline_fading,
    text_size,
)
from pipeline.drawing.tone_mapping import ToneMapper
from pipeline.structures.detections import Detections
from pipeline.structures.events import Event
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
"""R, G, B by track id: saturated, in contrast to the grey image; consecutive colours are dissimilar."""

_TENTATIVE = (165, 165, 165)
_UNTRACKED = (225, 225, 225)
_TEXT = (235, 235, 235)
_EDGE = (12, 12, 12)


@dataclass(frozen=True)
class AnnotatorOptions:
    """Options of `Annotator`.

    Lengths are in units that grow with the frame: 1 pixel below 720 rows, 2 at 1080, 4 at 2160. Raises
    ValueError if a value is out of range.
    """

    trail: int = 45
    """Length of the trail behind a track in frames; 0 draws none."""
    labels: bool = True
    """Write id and score beside each confirmed track, and the id beside coasting ones."""
    class_names: tuple[str, ...] = ()
    """Class names by label, written after the id; empty if there is one class."""
    detections: bool = True
    """Mark detections that belong to no track."""
    places: bool = True
    """Draw the zones, lines and masks of the rules of events."""
    contours: bool = True
    """Draw contours of the masks of segmenters, in one colour for each, and their names in a corner."""
    min_score: float = 0.4
    """Minimum score of a detection that is marked; tracks are drawn whatever their score."""
    margin: int = 2
    """Distance between the pixels of a box and the line around it, in units."""
    insets: int = 3
    """Maximum number of insets, which are enlarged views of small targets; 0 draws none."""
    inset_zoom: int = 4
    """Maximum number of display pixels per source pixel in an inset; larger targets are enlarged less."""
    inset_share: float = 0.28
    """Side of an inset as a share of the shorter side of the image."""
    inset_interpolation: Literal["cubic", "nearest"] = "cubic"
    """Interpolation of insets; "nearest" shows source pixels as squares."""
    status: bool = False
    """Write frame number and time in a corner."""

    def __post_init__(self) -> None:
        require_range(self, "trail", "margin", "insets", low=0)
        require_range(self, "inset_zoom", low=2)
        require_range(self, "inset_share", above=0, high=0.5)
        if self.inset_interpolation not in ("cubic", "nearest"):
            raise ValueError(
                f"inset_interpolation = '{self.inset_interpolation}', expected 'cubic' or 'nearest'"
            )


class Annotator:
    """Draws the results of one source, in order.

    Its state are the trails of tracks, the layout of insets and the limits of the tone mapping.
    """

    def __init__(self, options: AnnotatorOptions | None = None):
        self.options = options or AnnotatorOptions()
        self._tone = ToneMapper()
        self._layout = InsetLayout(
            count=self.options.insets, zoom=self.options.inset_zoom, share=self.options.inset_share
        )
        self._trails: dict[int, deque[tuple[float, float]]] = {}
        self._events: dict[int, list[str]] = {}  # rules of the events of each track that go on
        self.places: Sequence[Outline] = ()
        """Zones, lines and masks of events."""

    def reset(self) -> None:
        """Resets the state for a new source."""
        self._tone.reset()
        self._layout.reset()
        self._trails.clear()
        self._events.clear()

    def __call__(self, result: Result) -> np.ndarray:
        """Draws one result; returns a new image, (H, W, 3) uint8 R, G, B, at the size of the frame."""
        options = self.options
        image = self._tone(result.frame)
        canvas = image.copy() if image.ndim == 3 else cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
        height, width = image.shape[:2]
        unit = max(1, round(min(height, width) / 480))
        margin, reach = options.margin * unit, (options.margin + 1) * unit
        marks = [m for m in _marks(result.tracks) if _is_visible(m.box, width, height)]
        untracked = []
        if options.detections:
            detections = result.detections[result.detections.scores >= options.min_score]
            untracked = _untracked(detections, result.tracks)

        self._update_trails(result.tracks)
        self._update_events(result.events)
        if options.places:
            draw_places(canvas, self.places, unit)
        self._draw_trails(canvas, marks, unit)
        for mark in marks:  # no trail covers a target
            target = mark.box.slices()
            canvas[target] = image[target] if image.ndim == 3 else image[target][..., None]
        masks = [found.regions > 0 for found in result.segments.values()] if options.contours else []
        if masks:
            draw_contours(canvas, masks, protected=protected_pixels(masks), thickness=max(1, unit // 2))
        for box in untracked:
            draw_outline(
                canvas, box, margin=margin, thickness=max(1, unit // 2), colour=_UNTRACKED, style="corners"
            )
        for mark in marks:
            _draw_box(canvas, mark, margin=margin, unit=unit)
            if mark.id in self._events:
                _draw_box(canvas, mark, margin=margin + 2 * unit, unit=unit)

        insets = self._layout.arrange(
            marks, untracked=untracked, width=width, height=height, clearance=2 * (reach + unit)
        )
        for inset in insets:
            self._draw_inset(canvas, image, inset, masks, unit)
        occupied = Occupancy(canvas.shape, (inset.position for inset in insets))
        for mark in marks:
            occupied.add(mark.box.grown(self._reach(mark, reach, unit)))
        if options.labels:
            self._draw_labels(canvas, marks, occupied=occupied, reach=reach, unit=unit)
        self._draw_status(canvas, result, occupied=occupied, unit=unit)
        return canvas

    def _update_trails(self, tracks: Tracks) -> None:
        """Appends the centres of this frame and forgets tracks that have ended."""
        if not self.options.trail:
            return
        trails = {}
        centres = (tracks.boxes[:, :2] + tracks.boxes[:, 2:]) / 2
        before = tracks.ids if tracks.provisional is None else tracks.provisional
        columns = (tracks.ids.tolist(), before.tolist(), centres.tolist())
        for track_id, provisional, centre in zip(*columns, strict=True):
            trail = self._trails.get(track_id, self._trails.get(provisional))
            trails[track_id] = deque(maxlen=self.options.trail) if trail is None else trail
            trails[track_id].append(tuple(centre))
        self._trails = trails

    def _update_events(self, events: Iterable[Event]) -> None:
        """Notes the events that start and end in this frame."""
        for event in events:
            rules = self._events.setdefault(event.track, [])
            if event.phase == "start":
                rules.append(event.rule)
            elif event.phase == "end" and event.rule in rules:
                rules.remove(event.rule)
            if not rules:
                del self._events[event.track]

    def _draw_trails(self, canvas: np.ndarray, marks: Iterable[Mark], unit: int) -> None:
        for mark in marks:
            if mark.id in self._trails and mark.state != TrackState.TENTATIVE:
                polyline_fading(canvas, np.array(self._trails[mark.id]), colour=mark.colour, thickness=unit)

    def _draw_inset(
        self, canvas: np.ndarray, image: np.ndarray, inset: Inset, masks: Sequence[np.ndarray], unit: int
    ) -> None:
        left, top, right, bottom = inset.position
        side, zoom, (x, y) = right - left, inset.zoom, inset.mark.centre
        # sub-pixel accuracy: the target stays in the middle of its inset while the background moves
        shift = zoom / 2 + side / 2 - 0.5
        matrix = np.array([[zoom, 0, shift - zoom * x], [0, zoom, shift - zoom * y]], np.float64)

        def enlarged(plane: np.ndarray, interpolation: int, border: int) -> np.ndarray:
            return cv2.warpAffine(plane, matrix, (side, side), flags=interpolation, borderMode=border)

        smooth = self.options.inset_interpolation == "cubic"
        interpolation = cv2.INTER_CUBIC if smooth else cv2.INTER_NEAREST
        view = canvas[top:bottom, left:right]
        view[:] = enlarged(image, interpolation, cv2.BORDER_REPLICATE).reshape(side, side, -1)
        if masks:
            planes = (mask.astype(np.uint8) for mask in (protected_pixels(masks), *masks))
            protected, *near = (enlarged(p, cv2.INTER_NEAREST, cv2.BORDER_CONSTANT) > 0 for p in planes)
            draw_contours(view, near, protected=protected, thickness=max(1, unit // 2))
        inner = inset.position.grown(-unit)
        draw_outline(canvas, inner, margin=0, thickness=unit, colour=_EDGE, style="solid")
        inner, colour = inner.grown(-unit), inset.mark.colour
        draw_outline(canvas, inner, margin=0, thickness=unit, colour=colour, style=_style(inset.mark))
        corner = inner.grown(-unit)
        draw_text(canvas, [(f"#{inset.mark.id}", colour)], left=corner.left, top=corner.top, scale=unit)

    def _draw_labels(
        self,
        canvas: np.ndarray,
        marks: Iterable[Mark],
        *,
        occupied: Occupancy,
        reach: int,
        unit: int,
    ) -> None:
        """Draws labels beside confirmed and coasting tracks, if there is room; adds them to `occupied`."""
        for mark in sorted(marks, key=lambda mark: (mark.state != TrackState.CONFIRMED, -mark.score)):
            if mark.state == TrackState.TENTATIVE:
                continue
            words = self._words(mark)
            height, width = text_size(words, scale=unit)
            position = label_position(
                mark.box.grown(self._reach(mark, reach, unit)),
                height=height,
                width=width,
                occupied=occupied,
            )
            if position is not None:
                occupied.add(position)
                draw_text(canvas, words, left=position.left, top=position.top, scale=unit)

    def _reach(self, mark: Mark, reach: int, unit: int) -> int:
        """Returns how far the lines around a box reach from it; those of a track in an event are two."""
        return reach + 2 * unit * (mark.id in self._events)

    def _words(self, mark: Mark) -> list[tuple[str, Colour]]:
        """Returns the words of a label with their colours; a coasting track has no score in this frame."""
        words = [(f"#{mark.id}", mark.colour)]
        if 0 <= mark.label < len(self.options.class_names):
            words.append((str(self.options.class_names[mark.label]), _TEXT))
        if mark.state == TrackState.CONFIRMED:
            words.append((f"{mark.score:.2f}".removeprefix("0"), _TEXT))
        words += [(rule, mark.colour) for rule in self._events.get(mark.id, ())[:1]]
        return words

    def _draw_status(self, canvas: np.ndarray, result: Result, *, occupied: Occupancy, unit: int) -> None:
        """Writes status, warm-up and the names of segmenters in the first free corner."""
        words: list[tuple[str, Colour]] = []
        if self.options.status:
            words += [(str(result.frame.index), _TEXT), (f"{float(result.frame.pts):.2f}s", _TENTATIVE)]
        if result.warmup:
            words.append(("warm-up", _TENTATIVE))
        if self.options.contours:
            words += [(name, contour_colour(index)) for index, name in enumerate(result.segments)]
        if not words:
            return
        text_height, text_width = text_size(words, scale=unit)
        margin = 2 * unit
        bottom, right = canvas.shape[0] - margin - text_height, canvas.shape[1] - margin - text_width
        if bottom < margin or right < margin:  # the image is smaller than the text
            return
        for x, y in ((margin, bottom), (right, bottom), (margin, margin), (right, margin)):
            position = Rectangle(x, y, x + text_width, y + text_height)
            if occupied.is_free(position):
                draw_text(canvas, words, left=x, top=y, scale=unit)
                return


def colour_of(track_id: int) -> Colour:
    """Returns the colour of a track, R, G, B."""
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
    draw_outline(canvas, mark.box, margin=margin, thickness=thickness, colour=colour, style=_style(mark))


def _untracked(detections: Detections, tracks: Tracks) -> list[Rectangle]:
    """Returns the boxes of detections whose centre lies in no track that was detected in this frame."""
    boxes = detections.boxes
    if not len(boxes):
        return []
    detected = tracks.boxes[tracks.state != TrackState.COASTING]
    centres = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2  # (N, 1, 2)
    margin = np.maximum(2.0, (detected[:, 2:] - detected[:, :2]) / 4)  # the filter lags behind the target
    inside = (centres >= detected[:, :2] - margin) & (centres <= detected[:, 2:] + margin)
    is_tracked = inside.all(-1).any(-1)
    return [Rectangle.around(box) for box in boxes[~is_tracked].tolist()]


def _is_visible(box: Rectangle, width: int, height: int) -> bool:
    return box.left < width and box.top < height and box.right > 0 and box.bottom > 0
