"""Rendering of synthetic scenes to frames with exact ground truth, and to video files with COCO annotations.

    for image, annotations in render(Scene.random(0)):
        ...

Conventions of the ground truth:

- The box surrounds the support of the target, the ellipse at 2.5 standard deviations of its point spread (at
  least 4 pixels a side), with `Scene.margin` pixels on each side, and is clipped to the image. The mask holds
  the pixels whose centres lie in the support, at least the one under the target's centre.
- A target is drawn without an annotation while its centre is outside the image, clouds transmit less than
  `min_transmission` of it, or a saturated background leaves less than `MIN_HEADROOM_LEVELS`. It keeps its id.
- The signal-to-clutter ratio is the amplitude of the point spread over the standard deviation of the
  background in a ring around the box, `RING_WIDTH_PX` wide. The background includes noise, but no targets,
  defective pixels and clouds in front of the target; its deviation is averaged over past frames with
  `CLUTTER_UPDATE_WEIGHT`. Clouds in front of the target then dim it.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.synthesis.scene import SUPPORT_SIGMAS, Scene, Target
from datasets.synthesis.scenery import Ground, Sensor, Sky, camera_path
from pipeline.system.errors import OutputError, UsageError
from pipeline.system.files import atomic_write

RING_WIDTH_PX = 6
"""Width of the ring around the box in which the clutter is measured."""

CLUTTER_UPDATE_WEIGHT = 0.1
"""Weight of the newest frame in the running mean of the clutter; smaller ones make amplitudes steadier."""

MAX_CLEAR_DENSITY = 0.05
"""Pixels of denser clouds are not background of a target behind them."""

MIN_HEADROOM_LEVELS = 8
"""Minimum distance of the background from white (black for cold targets) at which a target is visible."""

DEFAULT_CRF = 14
"""Quality of H.264; at the usual 23 the encoder removes targets of a signal-to-clutter ratio of 3."""

Box = tuple[float, float, float, float]


def min_transmission(target: Target) -> float:
    """Returns the share of its signal that clouds must transmit for `target` to be annotated.

    A tenth, or the share at which its signal is twice the clutter if that is more, but at most 0.7.
    """
    return max(0.1, min(2 / max(target.scr, 1e-9), 0.7))


@dataclass(frozen=True, eq=False)
class TargetAnnotation:
    """Box and mask of one target in one frame."""

    id: int
    """From 1; the position of the target in `Scene.targets`."""
    box: Box
    """x1 y1 x2 y2 in source pixels, right and bottom exclusive, clipped to the image."""
    support: np.ndarray
    """(h, w) bool: the part of the mask around the target."""
    corner: tuple[int, int]
    """Row and column of the first pixel of the support in the image."""
    size: tuple[int, int]
    """Height and width of the image."""

    @property
    def mask(self) -> np.ndarray:
        """(H, W) bool mask of the size of the image."""
        full = np.zeros(self.size, bool)
        (row, column), (height, width) = self.corner, self.support.shape
        full[row : row + height, column : column + width] = self.support
        return full


@dataclass(frozen=True)
class _VisibleTarget:
    """Position and box of a target in the image of one frame."""

    id: int
    target: Target
    x: float
    y: float
    box: Box  # not clipped

    def inside(self, scene: Scene) -> bool:
        return 0 <= self.x < scene.width and 0 <= self.y < scene.height

    def clipped(self, scene: Scene) -> Box:
        x1, y1, x2, y2 = self.box
        return max(x1, 0.0), max(y1, 0.0), min(x2, float(scene.width)), min(y2, float(scene.height))


def render(scene: Scene) -> Iterator[tuple[np.ndarray, list[TargetAnnotation]]]:
    """Renders `scene` frame by frame in bounded memory.

    Yields the image, (H, W) uint8 or uint16 depending on `scene.bits`, and the annotations of its targets in
    the order of their ids.
    """
    streams = [np.random.default_rng([scene.seed, part]) for part in range(1, 5)]
    sky, ground = Sky(scene, rng=streams[0]), Ground(scene, rng=streams[1])
    sensor, path = Sensor(scene, rng=streams[2]), camera_path(scene, rng=streams[3])
    clutter: dict[int, float] = {}
    for index in range(scene.frames):
        camera = next(path)
        image, density = sky.render(index, camera)
        ground.draw_over(image, density, camera=camera)
        sensor.add_noise(image)
        visible = _visible_targets(scene, index=index, camera=camera)
        clutter = {seen.id: _clutter(image, density, seen, past=clutter.get(seen.id)) for seen in visible}
        saturated = {seen.id for seen in visible if _headroom(image, seen) < MIN_HEADROOM_LEVELS}
        drawn = [_draw(image, seen, scene, density=density, clutter=clutter[seen.id]) for seen in visible]
        sensor.add_defects(image)
        annotations = [found for found in drawn if found is not None and found.id not in saturated]
        yield _quantise(image, bits=scene.bits), annotations


def _visible_targets(scene: Scene, *, index: int, camera: tuple[float, float]) -> list[_VisibleTarget]:
    """Returns the targets whose boxes touch the image of frame `index`."""
    visible = []
    for number, target in enumerate(scene.targets, start=1):
        if index < target.start or (target.stop is not None and index >= target.stop):
            continue
        x, y = target.position(index)
        x, y = x - camera[0], y - camera[1]
        half_width, half_height = (half + scene.margin for half in target.extent)
        box = (x - half_width, y - half_height, x + half_width, y + half_height)
        if box[2] > 0 and box[3] > 0 and box[0] < scene.width and box[1] < scene.height:
            visible.append(_VisibleTarget(number, target, x, y, box))
    return visible


def _clutter(image: np.ndarray, density: np.ndarray, seen: _VisibleTarget, *, past: float | None) -> float:
    """Returns the running mean of the standard deviation in the ring around the box, in levels."""
    x1, y1, x2, y2 = seen.box
    rows, columns = _pixels(
        (x1 - RING_WIDTH_PX, y1 - RING_WIDTH_PX, x2 + RING_WIDTH_PX, y2 + RING_WIDTH_PX), shape=image.shape
    )
    inner_rows, inner_columns = _pixels(seen.box, shape=image.shape)
    ring = np.ones((rows.stop - rows.start, columns.stop - columns.start), bool)
    ring[
        inner_rows.start - rows.start : inner_rows.stop - rows.start,
        inner_columns.start - columns.start : inner_columns.stop - columns.start,
    ] = False
    if seen.target.behind_clouds:
        clear = ring & (density[rows, columns] < MAX_CLEAR_DENSITY)
        enough = 4 * clear.sum() >= ring.sum()  # a quarter of the ring
        if past is not None and not enough:
            return past
        ring = clear if enough else ring
    now = float(image[rows, columns][ring].std(dtype=np.float64))
    return now if past is None else past + CLUTTER_UPDATE_WEIGHT * (now - past)


def _pixels(box: Box, *, shape: tuple[int, int]) -> tuple[slice, slice]:
    """Returns the rows and columns of the pixels that `box` touches."""
    x1, y1, x2, y2 = box
    rows = slice(min(max(math.floor(y1), 0), shape[0]), max(min(math.ceil(y2), shape[0]), 0))
    return rows, slice(min(max(math.floor(x1), 0), shape[1]), max(min(math.ceil(x2), shape[1]), 0))


def _core(seen: _VisibleTarget, *, shape: tuple[int, int]) -> tuple[slice, slice]:
    """Returns the 3 × 3 pixels around the centre of a target, or those nearest to it in the image."""
    x = min(max(seen.x, 0.5), shape[1] - 0.5)
    y = min(max(seen.y, 0.5), shape[0] - 0.5)
    return _pixels((math.floor(x) - 1, math.floor(y) - 1, math.floor(x) + 2, math.floor(y) + 2), shape=shape)


def _headroom(background: np.ndarray, seen: _VisibleTarget) -> float:
    """Returns the levels between the background under a target and the end of the scale."""
    level = float(background[_core(seen, shape=background.shape)].mean(dtype=np.float64))
    return level if seen.target.cold else 255 - level


def _draw(
    image: np.ndarray, seen: _VisibleTarget, scene: Scene, *, density: np.ndarray, clutter: float
) -> TargetAnnotation | None:
    """Adds a target to `image` in place; returns its annotation, or None if it is hidden or outside."""
    transmission = 1.0
    if seen.target.behind_clouds:
        cloud = density[_core(seen, shape=density.shape)].mean(dtype=np.float64)
        transmission = math.exp(-scene.optical_depth * float(cloud))
    amplitude = min(seen.target.scr * clutter, scene.max_amplitude) * transmission
    # Four standard deviations keep the cut edge below a thousandth of the peak.
    reach = tuple(4 / SUPPORT_SIGMAS * half for half in seen.target.extent)
    window = (seen.x - reach[0], seen.y - reach[1], seen.x + reach[0], seen.y + reach[1])
    rows, columns = _pixels(window, shape=image.shape)
    distance = _squared_distance(seen, rows=rows, columns=columns)
    image[rows, columns] += (-amplitude if seen.target.cold else amplitude) * np.exp(-0.5 * distance)
    if transmission < min_transmission(seen.target) or not seen.inside(scene):
        return None
    support = distance <= SUPPORT_SIGMAS**2
    support[math.floor(seen.y) - rows.start, math.floor(seen.x) - columns.start] = True
    size = (scene.height, scene.width)
    return TargetAnnotation(seen.id, seen.clipped(scene), support, (rows.start, columns.start), size)


def _squared_distance(seen: _VisibleTarget, *, rows: slice, columns: slice) -> np.ndarray:
    """Returns the squared Mahalanobis distance of pixel centres from the target."""
    xx, xy, yy = seen.target.covariance
    dx = np.arange(columns.start, columns.stop)[None] + 0.5 - seen.x
    dy = np.arange(rows.start, rows.stop)[:, None] + 0.5 - seen.y
    return (yy * dx * dx - 2 * xy * dx * dy + xx * dy * dy) / (xx * yy - xy * xy)


def _quantise(image: np.ndarray, *, bits: int) -> np.ndarray:
    """Converts levels of an 8-bit image to uint8 or uint16 with the full scale of `bits`."""
    full = 2**bits - 1
    scaled = np.rint(image * np.float32(full / 255))
    return np.clip(scaled, 0, full, out=scaled).astype(np.uint8 if bits == 8 else np.uint16)


def write_scene(
    scene: Scene, out: str | os.PathLike[str], *, crf: int = DEFAULT_CRF, overwrite: bool = False
) -> dict:
    """Renders `scene` to the video `out` and its COCO-video ground truth beside it (`.json`).

    8 bits become H.264 (yuv420p), more bits lossless FFV1 (gray16le). `out` ends in .mp4, whose frame times
    are exactly index / rate, or in .mkv, whose times are whole milliseconds. Coordinates are rounded to a
    thousandth of a pixel. The files appear under their names when both are complete. Returns the ground
    truth. Raises UsageError for other suffixes and sizes that H.264 cannot hold, and OutputError for files
    that exist (unless `overwrite`) or cannot be written.
    """
    video = Path(out)
    if video.suffix not in (".mp4", ".mkv"):
        raise UsageError(f"cannot write '{video}': name it .mp4 or .mkv")
    labels = video.with_suffix(".json")
    for path in (video, labels):
        if path.exists() and not overwrite:
            raise OutputError(f"'{path}' exists: give --overwrite or another name")
    with atomic_write(labels) as partial_labels, atomic_write(video) as partial_video:
        truth = _write_video(scene, partial_video, video=video, crf=crf)
        partial_labels.write_text(json.dumps(truth, separators=(",", ":")) + "\n", encoding="utf-8")
    return truth


def _write_video(scene: Scene, path: Path, *, video: Path, crf: int) -> dict:
    """Encodes to `path` and returns the ground truth of the file, which will be called `video`."""
    import av

    deep = scene.bits > 8
    if not deep and (scene.width % 2 or scene.height % 2):
        raise UsageError(f"H.264 cannot hold {scene.width}x{scene.height}: give an even width and height")
    images: list[dict] = []
    annotations: list[dict] = []
    container_format = "mp4" if video.suffix == ".mp4" else "matroska"
    try:
        with open(path, "wb") as file, av.open(file, "w", format=container_format) as container:
            stream = container.add_stream("ffv1" if deep else "libx264", rate=scene.rate)
            stream.width, stream.height = scene.width, scene.height
            stream.pix_fmt = "gray16le" if deep else "yuv420p"
            stream.time_base = stream.codec_context.time_base = 1 / scene.rate
            # One thread, since the bytes must not depend on the number of cores.
            stream.codec_context.thread_count = 1
            stream.options = {} if deep else {"crf": str(crf)}
            for index, (image, targets) in enumerate(render(scene)):
                frame = av.VideoFrame.from_ndarray(image, format="gray16le" if deep else "gray")
                if not deep:  # done by the encoder, the conversion would differ from one process to the next
                    frame = frame.reformat(format="yuv420p")
                frame.pts, frame.time_base = index, 1 / scene.rate
                container.mux(stream.encode(frame))
                images.append(_coco_image(scene, index, name=video.stem))
                annotations += [_coco_annotation(target, image_id=index + 1) for target in targets]
            container.mux(stream.encode())
    except av.FFmpegError as error:
        raise OutputError(f"cannot write '{video}': {error.strerror}; choose another place") from error
    for number, annotation in enumerate(annotations, start=1):
        annotation["id"] = number
    return {
        "videos": [_coco_video(scene, video)],
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "target"}],
    }


def _coco_video(scene: Scene, path: Path) -> dict:
    size = {"width": scene.width, "height": scene.height}
    timing = {"fps": float(scene.rate), "length": scene.frames}
    return {"id": 1, "name": path.stem, "file_name": path.name, **size, **timing, "bit_depth": scene.bits}


def _coco_image(scene: Scene, index: int, *, name: str) -> dict:
    size = {"width": scene.width, "height": scene.height}
    return {"id": index + 1, "video_id": 1, "frame_id": index, **size, "file_name": f"{name}/{index:06d}"}


def _coco_annotation(target: TargetAnnotation, *, image_id: int) -> dict:
    from pycocotools import mask as coco_mask

    x1, y1, x2, y2 = target.box
    encoded = coco_mask.encode(np.asfortranarray(target.mask, dtype=np.uint8))
    return {
        "id": 0,  # numbered when all are known
        "image_id": image_id,
        "video_id": 1,
        "category_id": 1,
        "instance_id": target.id,
        "bbox": [round(value, 3) for value in (x1, y1, x2 - x1, y2 - y1)],
        "area": int(target.support.sum()),
        "iscrowd": 0,
        "segmentation": {"size": list(target.size), "counts": encoded["counts"].decode("ascii")},
    }
