"""datasets.synthesis.rendering."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.synthesis.scene import SUPPORT, Scene, Target
from datasets.synthesis.scenery import Ground, Sensor, Sky, camera_path
from pipeline.system.errors import OutputError, UsageError
from pipeline.system.files import atomic_write

RING = 6
"""Width in pixels of the ring round the box in which the clutter is measured."""

MEMORY = 0.1
"""Weight of the newest frame in the running mean of the clutter: amplitudes must not flicker."""

THIN_CLOUD = 0.05
"""Pixels of a cloud at least this dense are no background of a target behind it."""

ROOM = 8
"""Levels between the background and white (black for cold targets) below which nothing of a target shows."""

CRF = 14
"""Quality of H.264: at the usual 23 the coder wipes out targets of a signal-to-clutter ratio of 3."""

Box = tuple[float, float, float, float]


def least_passed(target: Target) -> float:
    """The share of its signal that clouds must let through for `target` to be recorded.

    A tenth, or what leaves it twice the clutter where that is more, but never above 0.7.
    """
    return max(0.1, min(2 / max(target.scr, 1e-9), 0.7))


@dataclass(frozen=True, eq=False)
class Truth:
    """Where one target is in one frame."""

    id: int
    """From 1; the target's place in `Scene.targets`."""
    box: Box
    """x1 y1 x2 y2 in source pixels, right and bottom exclusive, clipped to the picture."""
    support: np.ndarray
    """(h, w) bool: the part of the mask round the target."""
    corner: tuple[int, int]
    """Row and column of the support's first pixel in the picture."""
    size: tuple[int, int]
    """Height and width of the picture."""

    @property
    def mask(self) -> np.ndarray:
        """(H, W) bool at picture size."""
        full = np.zeros(self.size, bool)
        (row, column), (height, width) = self.corner, self.support.shape
        full[row : row + height, column : column + width] = self.support
        return full


@dataclass(frozen=True)
class _Sighting:
    """A target as it falls on the picture of one frame."""

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


def render(scene: Scene) -> Iterator[tuple[np.ndarray, list[Truth]]]:
    """Draw `scene` frame by frame in bounded memory.

    Yields the picture, (H, W) uint8 or uint16 as `scene.bits` asks, and the records of the targets in it, in
    the order of their ids.
    """
    streams = [np.random.default_rng([scene.seed, part]) for part in range(1, 5)]
    sky, ground = Sky(scene, rng=streams[0]), Ground(scene, rng=streams[1])
    sensor, path = Sensor(scene, rng=streams[2]), camera_path(scene, rng=streams[3])
    clutter: dict[int, float] = {}
    for index in range(scene.frames):
        camera = next(path)
        picture, density = sky.at(index, camera)
        ground.draw(picture, density, camera=camera)
        sensor.expose(picture)
        sightings = _sightings(scene, index=index, camera=camera)
        clutter = {seen.id: _clutter(picture, density, seen, past=clutter.get(seen.id)) for seen in sightings}
        swallowed = {seen.id for seen in sightings if _room(picture, seen) < ROOM}
        drawn = [_draw(picture, seen, scene, density=density, clutter=clutter[seen.id]) for seen in sightings]
        sensor.spoil(picture)
        truths = [truth for truth in drawn if truth is not None and truth.id not in swallowed]
        yield _digitise(picture, bits=scene.bits), truths


def _sightings(scene: Scene, *, index: int, camera: tuple[float, float]) -> list[_Sighting]:
    """The targets that touch the picture of frame `index`."""
    sightings = []
    for number, target in enumerate(scene.targets, start=1):
        if index < target.start or (target.stop is not None and index >= target.stop):
            continue
        x, y = target.position(index)
        x, y = x - camera[0], y - camera[1]
        half_width, half_height = (half + scene.margin for half in target.extent)
        box = (x - half_width, y - half_height, x + half_width, y + half_height)
        if box[2] > 0 and box[3] > 0 and box[0] < scene.width and box[1] < scene.height:
            sightings.append(_Sighting(number, target, x, y, box))
    return sightings


def _clutter(picture: np.ndarray, density: np.ndarray, seen: _Sighting, *, past: float | None) -> float:
    """Running mean of the standard deviation in the ring round the box, levels."""
    x1, y1, x2, y2 = seen.box
    rows, columns = _pixels((x1 - RING, y1 - RING, x2 + RING, y2 + RING), shape=picture.shape)
    inner_rows, inner_columns = _pixels(seen.box, shape=picture.shape)
    ring = np.ones((rows.stop - rows.start, columns.stop - columns.start), bool)
    ring[
        inner_rows.start - rows.start : inner_rows.stop - rows.start,
        inner_columns.start - columns.start : inner_columns.stop - columns.start,
    ] = False
    if seen.target.behind_clouds:
        clear = ring & (density[rows, columns] < THIN_CLOUD)
        enough = 4 * clear.sum() >= ring.sum()
        if past is not None and not enough:
            return past
        ring = clear if enough else ring
    now = float(picture[rows, columns][ring].std(dtype=np.float64))
    return now if past is None else past + MEMORY * (now - past)


def _pixels(box: Box, *, shape: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of the pixels that `box` touches."""
    x1, y1, x2, y2 = box
    rows = slice(min(max(math.floor(y1), 0), shape[0]), max(min(math.ceil(y2), shape[0]), 0))
    return rows, slice(min(max(math.floor(x1), 0), shape[1]), max(min(math.ceil(x2), shape[1]), 0))


def _core(seen: _Sighting, *, shape: tuple[int, int]) -> tuple[slice, slice]:
    """The three by three pixels round the target's centre, or those nearest to it in the picture."""
    x = min(max(seen.x, 0.5), shape[1] - 0.5)
    y = min(max(seen.y, 0.5), shape[0] - 0.5)
    return _pixels((math.floor(x) - 1, math.floor(y) - 1, math.floor(x) + 2, math.floor(y) + 2), shape=shape)


def _room(background: np.ndarray, seen: _Sighting) -> float:
    """Levels that the background under a target leaves it to the end of the scale."""
    level = float(background[_core(seen, shape=background.shape)].mean(dtype=np.float64))
    return level if seen.target.cold else 255 - level


def _draw(
    picture: np.ndarray, seen: _Sighting, scene: Scene, *, density: np.ndarray, clutter: float
) -> Truth | None:
    """Add a target to `picture` in place; its record, or None where there is none to give."""
    passed = 1.0
    if seen.target.behind_clouds:
        cloud = density[_core(seen, shape=density.shape)].mean(dtype=np.float64)
        passed = math.exp(-scene.opacity * float(cloud))
    amplitude = min(seen.target.scr * clutter, scene.ceiling) * passed
    # Four standard deviations keep the cut edge below a thousandth of the peak.
    reach = tuple(4 / SUPPORT * half for half in seen.target.extent)
    window = (seen.x - reach[0], seen.y - reach[1], seen.x + reach[0], seen.y + reach[1])
    rows, columns = _pixels(window, shape=picture.shape)
    distance = _distance(seen, rows=rows, columns=columns)
    picture[rows, columns] += (-amplitude if seen.target.cold else amplitude) * np.exp(-0.5 * distance)
    if passed < least_passed(seen.target) or not seen.inside(scene):
        return None
    support = distance <= SUPPORT**2
    support[math.floor(seen.y) - rows.start, math.floor(seen.x) - columns.start] = True
    size = (scene.height, scene.width)
    return Truth(seen.id, seen.clipped(scene), support, (rows.start, columns.start), size)


def _distance(seen: _Sighting, *, rows: slice, columns: slice) -> np.ndarray:
    """Squared distance of pixel centres from the target in standard deviations (Mahalanobis)."""
    xx, xy, yy = seen.target.covariance
    dx = np.arange(columns.start, columns.stop)[None] + 0.5 - seen.x
    dy = np.arange(rows.start, rows.stop)[:, None] + 0.5 - seen.y
    return (yy * dx * dx - 2 * xy * dx * dy + xx * dy * dy) / (xx * yy - xy * xy)


def _digitise(picture: np.ndarray, *, bits: int) -> np.ndarray:
    full = 2**bits - 1
    scaled = np.rint(picture * np.float32(full / 255))
    return np.clip(scaled, 0, full, out=scaled).astype(np.uint8 if bits == 8 else np.uint16)


def write(scene: Scene, out: str | os.PathLike, *, crf: int = CRF, overwrite: bool = False) -> dict:
    """Render `scene` into the video `out` and its ground truth beside it (`.json`); returns the ground truth.

    8 bits become H.264 (yuv420p), more bits lossless FFV1 (gray16le). `out` ends in .mp4, where the frames
    stand at exactly index / rate, or in .mkv, which knows whole milliseconds only. The ground truth is COCO
    with `videos`; its numbers are rounded to a thousandth of a pixel. Both files appear under their names
    when they are complete. Raises UsageError for another ending and OutputError for files that exist (unless
    `overwrite`) or cannot be written.
    """
    video = Path(out)
    if video.suffix not in (".mp4", ".mkv"):
        raise UsageError(f"cannot write '{video}': name it .mp4 or .mkv")
    labels = video.with_suffix(".json")
    for path in (video, labels):
        if path.exists() and not overwrite:
            raise OutputError(f"'{path}' exists: give --overwrite or another name")
    with atomic_write(labels) as labels_part, atomic_write(video) as video_part:
        truth = _write_video(scene, video_part, video=video, crf=crf)
        labels_part.write_text(json.dumps(truth, separators=(",", ":")) + "\n")
    return truth


def _write_video(scene: Scene, path: Path, *, video: Path, crf: int) -> dict:
    """Encode to `path` and collect the ground truth of the file that will be called `video`."""
    import av

    deep = scene.bits > 8
    if not deep and (scene.width % 2 or scene.height % 2):
        raise UsageError(f"H.264 cannot hold {scene.width}x{scene.height}: give an even width and height")
    images, annotations = [], []
    container_format = "mp4" if video.suffix == ".mp4" else "matroska"
    try:
        with open(path, "wb") as file, av.open(file, "w", format=container_format) as container:
            stream = container.add_stream("ffv1" if deep else "libx264", rate=scene.rate)
            stream.width, stream.height = scene.width, scene.height
            stream.pix_fmt = "gray16le" if deep else "yuv420p"
            stream.time_base = stream.codec_context.time_base = 1 / scene.rate
            # One thread: the bytes must not depend on the number of cores.
            stream.codec_context.thread_count = 1
            stream.options = {} if deep else {"crf": str(crf)}
            for index, (picture, truths) in enumerate(render(scene)):
                frame = av.VideoFrame.from_ndarray(picture, format="gray16le" if deep else "gray")
                if not deep:  # left to the encoder, the conversion differs from one process to the next
                    frame = frame.reformat(format="yuv420p")
                frame.pts, frame.time_base = index, 1 / scene.rate
                container.mux(stream.encode(frame))
                images.append(_image(scene, index, name=video.stem))
                annotations += [_annotation(truth, image_id=index + 1) for truth in truths]
            container.mux(stream.encode())
    except av.FFmpegError as error:
        raise OutputError(f"cannot write '{video}': {error.strerror}; choose another place") from error
    for number, annotation in enumerate(annotations, start=1):
        annotation["id"] = number
    return {
        "videos": [_video(scene, video)],
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "target"}],
    }


def _video(scene: Scene, path: Path) -> dict:
    size = {"width": scene.width, "height": scene.height}
    timing = {"fps": float(scene.rate), "length": scene.frames}
    return {"id": 1, "name": path.stem, "file_name": path.name, **size, **timing, "bit_depth": scene.bits}


def _image(scene: Scene, index: int, *, name: str) -> dict:
    size = {"width": scene.width, "height": scene.height}
    return {"id": index + 1, "video_id": 1, "frame_id": index, **size, "file_name": f"{name}/{index:06d}"}


def _annotation(truth: Truth, *, image_id: int) -> dict:
    from pycocotools import mask as coco_mask

    x1, y1, x2, y2 = truth.box
    encoded = coco_mask.encode(np.asfortranarray(truth.mask, dtype=np.uint8))
    return {
        "id": 0,  # counted when all are known
        "image_id": image_id,
        "video_id": 1,
        "category_id": 1,
        "instance_id": truth.id,
        "bbox": [round(value, 3) for value in (x1, y1, x2 - x1, y2 - y1)],
        "area": int(truth.support.sum()),
        "iscrowd": 0,
        "segmentation": {"size": list(truth.size), "counts": encoded["counts"].decode("ascii")},
    }
