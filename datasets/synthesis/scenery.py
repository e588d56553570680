"""What stands behind the targets of a synthetic sequence: sky, clouds, ground, the camera and its sensor.

Everything is float32 in levels of an 8-bit picture. Only element-wise arithmetic runs per frame, so that the
pixels of a scene do not depend on the number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import NormalDist

import numpy as np

from datasets.synthesis.scene import Scene

REACH = 12.0
"""The camera's jitter never carries the picture further than this from its path, pixels."""
_TIES = 0.02  # share of its offset that the jittering camera gives back per frame: the walk stays near home


def camera_path(scene: Scene, *, rng: np.random.Generator) -> Iterator[tuple[float, float]]:
    """The picture's x, y offset in the scenery for each frame, pixels; (0, 0) in frame 0; endless."""
    x = y = 0.0
    index = 0
    while True:
        yield x + scene.pan * index, y
        step = rng.standard_normal(2) * scene.jitter
        x = min(max(x * (1 - _TIES) + step[0], -REACH), REACH)
        y = min(max(y * (1 - _TIES) + step[1], -REACH), REACH)
        index += 1


def texture(
    rng: np.random.Generator, *, shape: tuple[int, int], slope: float, largest: float, stretch: float = 1.0
) -> np.ndarray:
    """Periodic noise with a 1/f**slope amplitude spectrum: `shape` float32, mean 0, standard deviation 1.

    Forms grow up to about `largest` pixels and are `stretch` times wider than high.
    """
    rows, columns = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None]
    frequency = np.sqrt((columns * stretch) ** 2 + rows**2 + largest**-2)
    spectrum = np.fft.rfft2(rng.standard_normal(shape)) * frequency**-slope
    spectrum[0, 0] = 0
    field = np.fft.irfft2(spectrum, s=shape)
    return (field / field.std()).astype(np.float32)


class Plane:
    """A periodic picture from which windows are cut at fractional positions."""

    def __init__(self, values: np.ndarray, *, width: int, height: int):
        self.period = values.shape  # (rows, columns)
        self.size = (height, width)
        # Repeating the start behind the end makes each window one plain slice.
        self._values = np.pad(values, ((0, height + 3), (0, width + 3)), mode="wrap")

    def patch(self, x: float, y: float) -> np.ndarray:
        """(H + 3, W + 3) view whose row 1, column 1 is the pixel at floor(y), floor(x)."""
        row = (math.floor(y) - 1) % self.period[0]
        column = (math.floor(x) - 1) % self.period[1]
        return self._values[row : row + self.size[0] + 3, column : column + self.size[1] + 3]

    def window(self, x: float, y: float) -> np.ndarray:
        """(H, W) float32 whose top-left pixel lies at column x, row y of the plane."""
        return shift(self.patch(x, y), x=x % 1.0, y=y % 1.0)


def shift(patch: np.ndarray, *, x: float, y: float) -> np.ndarray:
    """The (H, W) inside of an (H + 3, W + 3) patch, moved by fractions 0 ≤ x, y < 1 (Catmull-Rom cubic)."""
    height, width = patch.shape[0] - 3, patch.shape[1] - 3
    rows = _blend([patch[k : k + height] for k in range(4)], y)
    return _blend([rows[:, k : k + width] for k in range(4)], x)


def _blend(taps: list[np.ndarray], f: float) -> np.ndarray:
    if f == 0:
        return taps[1].copy()
    weights = (
        ((-f + 2) * f - 1) * f / 2,
        ((3 * f - 5) * f * f + 2) / 2,
        ((-3 * f + 4) * f + 1) * f / 2,
        (f - 1) * f * f / 2,
    )
    result = taps[0] * np.float32(weights[0])
    product = np.empty_like(result)
    for tap, weight in zip(taps[1:], weights[1:], strict=True):
        result += np.multiply(tap, np.float32(weight), out=product)
    return result


def _torus(scene: Scene) -> tuple[int, int]:
    """Period of the scenery: a power of two, so far beyond the picture that repetition does not show."""
    return tuple(2 ** math.ceil(math.log2(side * 1.5)) for side in (scene.height, scene.width))


class Sky:
    """Open sky with mottling, and clouds that drift and change."""

    def __init__(self, scene: Scene, *, rng: np.random.Generator):
        self._scene = scene
        forms = {
            "shape": _torus(scene),
            "slope": 2.2,
            "largest": scene.cloud_size,
            "stretch": scene.cloud_stretch,
        }
        size = {"width": scene.width, "height": scene.height}
        # Two independent fields turned into each other keep the statistics of one at any moment.
        self._fields = [Plane(texture(rng, **forms), **size) for _ in range(2)]
        fine = texture(rng, shape=_torus(scene), slope=1.6, largest=scene.cloud_size / 3, stretch=1.5)
        self._detail = Plane(fine, **size)
        self._threshold = NormalDist().inv_cdf(1 - scene.clouds) if scene.clouds else math.inf
        self._across = np.linspace(-0.5, 0.5, scene.width, dtype=np.float32) * scene.gradient[0]

    def at(self, index: int, camera: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
        """Levels and cloud density (0 to 1) of frame `index`: two (H, W) float32."""
        scene = self._scene
        x = camera[0] - scene.wind[0] * index
        y = camera[1] - scene.wind[1] * index
        field = self._forms(x, y, angle=scene.evolution * index)
        picture = field * np.float32(scene.haze)
        picture += self._rows(camera[1])[:, None]
        picture += self._across
        if not scene.clouds:
            return picture, np.zeros_like(picture)
        # Half of the soft edge lies on either side of the level that gives the asked coverage.
        field -= np.float32(self._threshold - scene.cloud_edge / 2)
        field *= np.float32(1 / scene.cloud_edge)
        density = np.clip(field, 0, 1, out=field)
        density = density * density * (3 - 2 * density)
        detail = self._detail.window(x * 1.1, y)
        detail *= np.float32(0.18)
        detail += np.float32(0.8)
        detail *= density
        detail *= np.float32(scene.cloud_level)
        picture += detail
        return picture, density

    def _forms(self, x: float, y: float, *, angle: float) -> np.ndarray:
        first, second = (plane.patch(x, y) for plane in self._fields)
        mixed = first * np.float32(math.cos(angle))
        mixed += second * np.float32(math.sin(angle))
        return shift(mixed, x=x % 1.0, y=y % 1.0)

    def _rows(self, offset: float) -> np.ndarray:
        """(H,) level of the open sky in each row."""
        scene = self._scene
        rows = np.arange(scene.height) + 0.5 + offset
        level = scene.sky + scene.gradient[1] * rows / scene.height
        if scene.horizon is not None:
            above = np.maximum(scene.horizon - rows, 0)
            level *= 1 - np.exp(-((above / scene.glow) ** 1.5))
        return level.astype(np.float32)


class Ground:
    """A rough bright belt under the skyline and the fields below it, fixed in the scenery."""

    def __init__(self, scene: Scene, *, rng: np.random.Generator):
        self._first = scene.height  # first picture row that the ground can reach
        if scene.horizon is None:
            return
        columns = _torus(scene)[1]
        outline = texture(rng, shape=(1, columns), slope=1.5, largest=columns / 8)[0]
        spikes = texture(rng, shape=(1, columns), slope=1.2, largest=10)[0]
        skyline = scene.horizon + scene.trees * (0.22 * outline + 0.08 * spikes)
        self._first = min(max(math.floor(skyline.min() - REACH - 4), 0), scene.height)
        self._top = self._first - math.ceil(REACH) - 2  # scenery row of the planes' row 0
        rows = 2 ** math.ceil(math.log2(scene.height - self._top + 2 * REACH))
        cover, levels = self._paint(scene, rng, skyline=skyline, shape=(rows, columns))
        size = {"width": scene.width, "height": scene.height - self._first}
        self._cover = Plane(cover, **size)
        self._levels = Plane(cover * levels, **size)

    def _paint(self, scene: Scene, rng: np.random.Generator, *, skyline: np.ndarray, shape: tuple[int, int]):
        rows = self._top + 0.5 + np.arange(shape[0], dtype=np.float32)[:, None]
        leaves = texture(rng, shape=shape, slope=1.3, largest=14, stretch=0.6)
        depth = rows - skyline + 0.08 * scene.trees * leaves
        cover = np.clip(depth / 1.5 + 0.5, 0, 1)
        foot = scene.horizon + scene.trees + 0.05 * (skyline - scene.horizon)
        below = rows - foot
        soil = texture(rng, shape=shape, slope=0.8, largest=60, stretch=4)
        field = scene.field_level * (1 + 0.4 * np.exp(-np.maximum(below, 0) / 20)) + 0.6 * scene.relief * soil
        belt = scene.tree_level + 1.5 * scene.relief * leaves
        share = np.clip(below / 2 + 0.5, 0, 1)
        levels = np.clip(belt * (1 - share) + field * share, 0, 255)
        return cover.astype(np.float32), levels.astype(np.float32)

    def draw(self, picture: np.ndarray, density: np.ndarray, *, camera: tuple[float, float]) -> None:
        """Put the ground in front of `picture` and the cloud `density`, (H, W) float32, in place."""
        first = self._first
        if first >= len(picture):
            return
        x, y = camera[0], camera[1] + first - self._top
        clear = 1 - np.clip(self._cover.window(x, y), 0, 1)
        picture[first:] *= clear
        picture[first:] += self._levels.window(x, y)
        density[first:] *= clear


class Sensor:
    """Noise and defects of the detector array."""

    def __init__(self, scene: Scene, *, rng: np.random.Generator):
        shape = (scene.height, scene.width)
        self._rng = rng
        self._noise = np.float32(scene.noise)
        columns = rng.standard_normal(scene.width, dtype=np.float32) * scene.column_noise
        pixels = rng.standard_normal(shape, dtype=np.float32) * scene.pixel_noise
        self._offsets = (columns + pixels).astype(np.float32)
        places = rng.choice(scene.width * scene.height, size=scene.dead + scene.flickering, replace=False)
        self._dead, self._flickering = places[: scene.dead], places[scene.dead :]
        self._stuck = rng.choice(np.float32([0, 255]), size=scene.dead)

    def expose(self, picture: np.ndarray) -> None:
        """Add fixed-pattern and temporal noise to `picture`, (H, W) float32, in place."""
        picture += self._offsets
        noise = self._rng.standard_normal(picture.shape, dtype=np.float32)
        noise *= self._noise
        picture += noise

    def spoil(self, picture: np.ndarray) -> None:
        """Put the dead and the flickering pixels into `picture`, (H, W) float32 and contiguous, in place."""
        flat = picture.reshape(-1)
        jumps = self._rng.choice(np.float32([0, 0, 0, -60, 60]), size=len(self._flickering))
        flat[self._flickering] += jumps
        flat[self._dead] = self._stuck
