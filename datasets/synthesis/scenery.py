"""Background of a synthetic sequence: sky, clouds and ground, and the camera and sensor that observe them.

Images are float32 in levels of an 8-bit image. Only element-wise arithmetic runs per frame, so the pixels of
a scene do not depend on the number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import NormalDist

import numpy as np

from datasets.synthesis.scene import Scene

MAX_JITTER_PX = 12.0
"""Maximum distance of the jittering camera from its path along each axis."""
_RETURN_RATE = 0.02
"""Share of its offset that the jittering camera returns per frame, so the random walk stays bounded."""


def camera_path(scene: Scene, *, rng: np.random.Generator) -> Iterator[tuple[float, float]]:
    """Yields the x, y offset of the image in the scenery for each frame, without end; (0, 0) in frame 0."""
    x = y = 0.0
    index = 0
    while True:
        yield x + scene.pan * index, y
        step = rng.standard_normal(2) * scene.jitter
        x = min(max(x * (1 - _RETURN_RATE) + step[0], -MAX_JITTER_PX), MAX_JITTER_PX)
        y = min(max(y * (1 - _RETURN_RATE) + step[1], -MAX_JITTER_PX), MAX_JITTER_PX)
        index += 1


def power_law_noise(
    rng: np.random.Generator, *, shape: tuple[int, int], slope: float, scale: float, stretch: float = 1.0
) -> np.ndarray:
    """Returns periodic noise with a 1/f**slope amplitude spectrum.

    `shape` float32 with mean 0 and standard deviation 1. Structures have an outer scale of `scale` pixels and
    are `stretch` times wider than high.
    """
    rows, columns = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None]
    frequency = np.sqrt((columns * stretch) ** 2 + rows**2 + scale**-2)
    spectrum = np.fft.rfft2(rng.standard_normal(shape)) * frequency**-slope
    spectrum[0, 0] = 0
    field = np.fft.irfft2(spectrum, s=shape)
    return (field / field.std()).astype(np.float32)


class PeriodicImage:
    """A periodic image from which windows are cut at fractional positions."""

    def __init__(self, values: np.ndarray, *, width: int, height: int):
        self.period = values.shape  # (rows, columns)
        self.size = (height, width)
        # The start is repeated after the end, so each window is one slice.
        self._values = np.pad(values, ((0, height + 3), (0, width + 3)), mode="wrap")

    def patch(self, x: float, y: float) -> np.ndarray:
        """Returns an (H + 3, W + 3) view whose row 1, column 1 is the pixel at floor(y), floor(x)."""
        row = (math.floor(y) - 1) % self.period[0]
        column = (math.floor(x) - 1) % self.period[1]
        return self._values[row : row + self.size[0] + 3, column : column + self.size[1] + 3]

    def window(self, x: float, y: float) -> np.ndarray:
        """Returns the (H, W) float32 window whose top-left pixel is at column x, row y of the image."""
        return shift_subpixel(self.patch(x, y), x=x % 1.0, y=y % 1.0)


def shift_subpixel(patch: np.ndarray, *, x: float, y: float) -> np.ndarray:
    """Shifts an (H + 3, W + 3) patch by fractions 0 ≤ x, y < 1 with Catmull-Rom cubics; returns (H, W)."""
    height, width = patch.shape[0] - 3, patch.shape[1] - 3
    rows = _blend([patch[k : k + height] for k in range(4)], y)
    return _blend([rows[:, k : k + width] for k in range(4)], x)


def _blend(taps: list[np.ndarray], f: float) -> np.ndarray:
    """Interpolates between taps[1] and taps[2] at the fraction f."""
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


def _period(scene: Scene) -> tuple[int, int]:
    """Returns the period (rows, columns) of the scenery: powers of two, at least 1.5 times the image."""
    rows, columns = (2 ** math.ceil(math.log2(side * 1.5)) for side in (scene.height, scene.width))
    return rows, columns


class Sky:
    """Clear sky with texture, and clouds that drift and change shape."""

    def __init__(self, scene: Scene, *, rng: np.random.Generator):
        self._scene = scene
        period, cloud_size = _period(scene), scene.cloud_size
        size = {"width": scene.width, "height": scene.height}
        # Two independent fields, rotated into each other, have the statistics of one at any time.
        fields = [
            power_law_noise(rng, shape=period, slope=2.2, scale=cloud_size, stretch=scene.cloud_stretch)
            for _ in range(2)
        ]
        self._fields = [PeriodicImage(field, **size) for field in fields]
        detail = power_law_noise(rng, shape=period, slope=1.6, scale=cloud_size / 3, stretch=1.5)
        self._detail = PeriodicImage(detail, **size)
        self._threshold = NormalDist().inv_cdf(1 - scene.cloud_cover) if scene.cloud_cover else math.inf
        self._across = np.linspace(-0.5, 0.5, scene.width, dtype=np.float32) * scene.gradient[0]

    def render(self, index: int, camera: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
        """Returns the levels and the cloud density (0 to 1) of frame `index`: two (H, W) float32."""
        scene = self._scene
        x = camera[0] - scene.wind[0] * index
        y = camera[1] - scene.wind[1] * index
        field = self._cloud_field(x, y, angle=scene.cloud_evolution * index)
        image = field * np.float32(scene.haze)
        image += self._rows(camera[1])[:, None]
        image += self._across
        if not scene.cloud_cover:
            return image, np.zeros_like(image)
        # The soft edge is centred on the level that gives the requested cloud cover.
        field -= np.float32(self._threshold - scene.cloud_edge / 2)
        field *= np.float32(1 / scene.cloud_edge)
        density = np.clip(field, 0, 1, out=field)
        density = density * density * (3 - 2 * density)
        detail = self._detail.window(x * 1.1, y)
        detail *= np.float32(0.18)
        detail += np.float32(0.8)
        detail *= density
        detail *= np.float32(scene.cloud_level)
        image += detail
        return image, density

    def _cloud_field(self, x: float, y: float, *, angle: float) -> np.ndarray:
        first, second = (plane.patch(x, y) for plane in self._fields)
        mixed = first * np.float32(math.cos(angle))
        mixed += second * np.float32(math.sin(angle))
        return shift_subpixel(mixed, x=x % 1.0, y=y % 1.0)

    def _rows(self, offset: float) -> np.ndarray:
        """Returns the level of the clear sky in each row, (H,) float32."""
        scene = self._scene
        rows = np.arange(scene.height) + 0.5 + offset
        level = scene.sky + scene.gradient[1] * rows / scene.height
        if scene.horizon is not None:
            above = np.maximum(scene.horizon - rows, 0)
            level *= 1 - np.exp(-((above / scene.glow) ** 1.5))
        return level.astype(np.float32)


class Ground:
    """A rough bright tree line below the skyline and the fields below it, fixed in the scenery."""

    def __init__(self, scene: Scene, *, rng: np.random.Generator):
        self._first = scene.height  # first image row that the ground can reach
        if scene.horizon is None:
            return
        columns = _period(scene)[1]
        outline = power_law_noise(rng, shape=(1, columns), slope=1.5, scale=columns / 8)[0]
        spikes = power_law_noise(rng, shape=(1, columns), slope=1.2, scale=10)[0]
        skyline = scene.horizon + scene.tree_height * (0.22 * outline + 0.08 * spikes)
        self._first = min(max(math.floor(skyline.min() - MAX_JITTER_PX - 4), 0), scene.height)
        self._top = self._first - math.ceil(MAX_JITTER_PX) - 2  # scenery row of row 0 of the periodic images
        rows = 2 ** math.ceil(math.log2(scene.height - self._top + 2 * MAX_JITTER_PX))
        cover, levels = self._paint(scene, rng, horizon=scene.horizon, skyline=skyline, shape=(rows, columns))
        size = {"width": scene.width, "height": scene.height - self._first}
        self._cover = PeriodicImage(cover, **size)
        self._levels = PeriodicImage(cover * levels, **size)

    def _paint(
        self,
        scene: Scene,
        rng: np.random.Generator,
        *,
        horizon: float,
        skyline: np.ndarray,
        shape: tuple[int, int],
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns how far the ground covers the sky (0 to 1), and its levels; both `shape` float32."""
        rows = self._top + 0.5 + np.arange(shape[0], dtype=np.float32)[:, None]
        leaves = power_law_noise(rng, shape=shape, slope=1.3, scale=14, stretch=0.6)
        depth = rows - skyline + 0.08 * scene.tree_height * leaves
        cover = np.clip(depth / 1.5 + 0.5, 0, 1)
        foot = horizon + scene.tree_height + 0.05 * (skyline - horizon)
        below = rows - foot
        soil = power_law_noise(rng, shape=shape, slope=0.8, scale=60, stretch=4)
        field = scene.field_level * (1 + 0.4 * np.exp(-np.maximum(below, 0) / 20)) + 0.6 * scene.relief * soil
        belt = scene.tree_level + 1.5 * scene.relief * leaves
        share = np.clip(below / 2 + 0.5, 0, 1)
        levels = np.clip(belt * (1 - share) + field * share, 0, 255)
        return cover.astype(np.float32), levels.astype(np.float32)

    def draw_over(self, image: np.ndarray, density: np.ndarray, *, camera: tuple[float, float]) -> None:
        """Draws the ground over `image` and the cloud `density`, (H, W) float32, in place."""
        first = self._first
        if first >= len(image):
            return
        x, y = camera[0], camera[1] + first - self._top
        clear = 1 - np.clip(self._cover.window(x, y), 0, 1)
        image[first:] *= clear
        image[first:] += self._levels.window(x, y)
        density[first:] *= clear


class Sensor:
    """Noise and defective pixels of the detector array."""

    def __init__(self, scene: Scene, *, rng: np.random.Generator):
        shape = (scene.height, scene.width)
        self._rng = rng
        self._noise = np.float32(scene.noise)
        columns = rng.standard_normal(scene.width, dtype=np.float32) * scene.column_noise
        pixels = rng.standard_normal(shape, dtype=np.float32) * scene.pixel_noise
        self._offsets = (columns + pixels).astype(np.float32)
        places = rng.choice(
            scene.width * scene.height, size=scene.dead_pixels + scene.flickering_pixels, replace=False
        )
        self._dead, self._flickering = places[: scene.dead_pixels], places[scene.dead_pixels :]
        self._stuck = rng.choice(np.array([0, 255], dtype=np.float32), size=scene.dead_pixels)

    def add_noise(self, image: np.ndarray) -> None:
        """Adds fixed-pattern and temporal noise to `image`, (H, W) float32, in place."""
        image += self._offsets
        noise = self._rng.standard_normal(image.shape, dtype=np.float32)
        noise *= self._noise
        image += noise

    def add_defects(self, image: np.ndarray) -> None:
        """Applies dead and flickering pixels to `image`, (H, W) float32 and contiguous, in place."""
        flat = image.reshape(-1)
        jumps = self._rng.choice(np.array([0, 0, 0, -60, 60], dtype=np.float32), size=len(self._flickering))
        flat[self._flickering] += jumps
        flat[self._dead] = self._stuck
