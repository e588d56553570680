"""Description of a synthetic infrared sequence: its background, camera, sensor and targets.

Levels are grey levels on an 8-bit scale for every bit depth; they are scaled to the full scale when the image
is quantised. Positions are source pixels as in `pipeline.structures.frame`, in the image of frame 0: later
motion of the camera moves scenery and targets alike. Times are counted in frames.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from fractions import Fraction
from functools import partial

import numpy as np

from pipeline.config.ranges import require_range
from pipeline.system.errors import UsageError

SUPPORT_SIGMAS = 2.5
"""The support of a target is the ellipse at this many standard deviations of its point spread."""
MIN_BOX_SIDE_PX = 4.0
"""Minimum side of a box in pixels, before `Scene.margin` is added."""


@dataclass(frozen=True)
class Target:
    """A small hot or cold target with a Gaussian point spread on a smooth path.

    Raises UsageError if a field is out of its range.
    """

    x: float
    """Column of the centre at frame `start`, pixels."""
    y: float
    """Row of the centre at frame `start`, pixels."""
    vx: float = 0.0
    """Pixels per frame to the right."""
    vy: float = 0.0
    """Pixels per frame downwards."""
    weave_amplitude: float = 0.0
    """Amplitude in pixels of a slow sinusoidal motion across the direction of flight."""
    weave_period: float = 120.0
    """Period of that motion in frames."""
    sigma: float = 1.5
    """Standard deviation of the point spread across its long axis, pixels."""
    elongation: float = 1.0
    """Long axis over short axis of the point spread, 1 or more."""
    angle: float = 0.0
    """Direction of the long axis in radians from the x axis, clockwise on the screen."""
    scr: float = 10.0
    """Signal-to-clutter ratio: peak amplitude over the standard deviation of the surrounding clutter."""
    cold: bool = False
    """Darker than its surroundings instead of brighter."""
    behind_clouds: bool = True
    """True if clouds dim the target, False if it flies in front of them."""
    start: int = 0
    """First frame of the target."""
    stop: int | None = None
    """First frame without the target; None if it stays to the end."""

    def __post_init__(self):
        check = partial(require_range, self, prefix="target ", error=UsageError)
        check("sigma", "weave_period", above=0)
        check("elongation", low=1)
        check("scr", low=0)

    def position(self, index: int) -> tuple[float, float]:
        """Returns the centre x, y at frame `index`, in pixels of frame 0."""
        time = index - self.start
        speed = math.hypot(self.vx, self.vy)
        ahead = (self.vx / speed, self.vy / speed) if speed else (1.0, 0.0)
        sway = self.weave_amplitude * math.sin(2 * math.pi * time / self.weave_period)
        return self.x + self.vx * time - ahead[1] * sway, self.y + self.vy * time + ahead[0] * sway

    @property
    def covariance(self) -> tuple[float, float, float]:
        """Covariance xx, xy, yy of the point spread in squared pixels."""
        long, short = (self.sigma * self.elongation) ** 2, self.sigma**2
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        return (
            long * cos * cos + short * sin * sin,
            (long - short) * cos * sin,
            long * sin * sin + short * cos * cos,
        )

    @property
    def extent(self) -> tuple[float, float]:
        """Half the width and height of the box around the support in pixels, without the margin."""
        xx, _, yy = self.covariance
        width, height = (
            max(SUPPORT_SIGMAS * math.sqrt(variance), MIN_BOX_SIDE_PX / 2) for variance in (xx, yy)
        )
        return width, height


@dataclass(frozen=True)
class Scene:
    """All settings of a synthetic sequence. Raises UsageError if one is out of its range."""

    seed: int = 0
    """Seed of all random numbers: the same scene gives the same pixels."""
    width: int = 320
    """Pixels."""
    height: int = 256
    """Pixels."""
    frames: int = 300
    """Number of frames."""
    rate: Fraction = Fraction(30)
    """Frames per second."""
    bits: int = 8
    """Significant bits: 8 gives uint8; 9 to 16 give uint16 with full scale 2**bits - 1."""
    margin: float = 1.5
    """Pixels between the support and its box on each side, as in boxes drawn by hand."""
    targets: tuple[Target, ...] = ()
    """Targets; their ids are their positions in this tuple, counted from 1."""
    max_amplitude: float = 300.0
    """Maximum amplitude of a target in levels; values beyond black or white saturate."""

    sky: float = 100.0
    """Level of the clear sky at the top of the image."""
    gradient: tuple[float, float] = (0.0, 0.0)
    """Change of the level of the sky across the whole width and height."""
    haze: float = 1.5
    """Standard deviation of the texture of the clear sky in levels."""
    cloud_cover: float = 0.0
    """Share of the sky covered by clouds, from 0 to below 1."""
    cloud_level: float = 60.0
    """Level that the densest cloud adds to the sky; negative for cold clouds."""
    cloud_size: float = 120.0
    """Outer scale of the clouds in pixels: no structure is much larger."""
    cloud_stretch: float = 2.0
    """Width over height of the clouds."""
    cloud_edge: float = 1.2
    """Softness of the edges of clouds, in standard deviations of the noise that forms them."""
    optical_depth: float = 6.0
    """Optical depth of the densest cloud: its transmission is exp(-optical_depth)."""
    wind: tuple[float, float] = (0.15, 0.02)
    """Drift of the clouds in x and y, pixels per frame."""
    cloud_evolution: float = 0.003
    """Speed at which the clouds change shape in radians per frame; 2π is a full cycle."""

    horizon: float | None = None
    """Row of the skyline in frame 0 in pixels; None if there is only sky."""
    glow: float = 30.0
    """Rows over which the sky darkens towards the skyline, as with automatic gain."""
    tree_height: float = 24.0
    """Height of the bright tree line below the skyline in pixels; its roughness grows with it."""
    tree_level: float = 210.0
    """Level of the tree line."""
    field_level: float = 125.0
    """Level of the ground below the trees."""
    relief: float = 12.0
    """Standard deviation of the texture of the ground in levels."""

    jitter: float = 0.0
    """Random walk of the camera: standard deviation of its steps in x and y, pixels per frame."""
    pan: float = 0.0
    """Constant motion of the camera to the right, pixels per frame."""
    noise: float = 1.0
    """Standard deviation of temporal white Gaussian noise in levels."""
    column_noise: float = 0.3
    """Standard deviation of the fixed offsets of columns in levels."""
    pixel_noise: float = 0.3
    """Standard deviation of the fixed offsets of pixels in levels."""
    dead_pixels: int = 0
    """Number of pixels stuck at black or white."""
    flickering_pixels: int = 0
    """Number of pixels that jump at random."""

    def __post_init__(self):
        check = partial(require_range, self, error=UsageError)
        check("seed", "margin", "max_amplitude", "haze", "optical_depth", "tree_height", "relief", low=0)
        check("jitter", "noise", "column_noise", "pixel_noise", "dead_pixels", "flickering_pixels", low=0)
        check("width", "height", low=16, high=8192)
        check("frames", low=1)
        check("bits", low=8, high=16)
        check("cloud_cover", low=0, high=0.99)
        check("rate", above=0, high=1000)
        check("cloud_size", "cloud_stretch", "cloud_edge", "glow", above=0)
        defects, pixels = self.dead_pixels + self.flickering_pixels, self.width * self.height
        if defects > pixels:
            raise UsageError(f"{defects} pixels are dead or flickering; give {pixels} at most")

    @classmethod
    def random(cls, seed: int, **fixed) -> Scene:
        """Draws a varied scene for training from `seed`; keywords set fields of `Scene` to given values.

        Point spreads have standard deviations of 0.7 to 3 pixels and boxes sides of 7 to 18, small ones being
        most frequent. Levels follow uncooled cameras of 320 × 256. Raises UsageError for unknown fields.
        """
        unknown = sorted(set(fixed) - {field.name for field in fields(cls)})
        if unknown:
            raise UsageError(f"unknown scene setting {unknown}; see the fields of Scene")
        if seed < 0:
            raise UsageError(f"seed = {seed}, expected 0 or more")
        rng = np.random.default_rng([seed, 0])
        settings = {"seed": seed, **_draw_sky(rng), **_draw_camera(rng)}
        size = {name: fixed.get(name, getattr(cls, name)) for name in ("width", "height", "frames")}
        settings |= _draw_ground(rng, height=size["height"])
        settings |= fixed
        if "targets" not in fixed:
            horizon = settings["horizon"]
            lowest = 0.95 * size["height"] if horizon is None else horizon - 4
            settings["targets"] = _draw_targets(rng, pan=settings["pan"], lowest=lowest, **size)
        return cls(**settings)


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(math.exp(rng.uniform(math.log(low), math.log(high))))


def _draw_sky(rng: np.random.Generator) -> dict:
    overcast = rng.random() < 0.6
    return {
        "sky": float(rng.uniform(35, 120)),
        "gradient": (float(rng.normal(0, 8)), float(rng.normal(0, 12))),
        "haze": _log_uniform(rng, 0.3, 5),
        "cloud_cover": float(rng.uniform(0.05, 0.6)) if overcast else 0.0,
        "cloud_level": float(rng.choice([-25, 15, 30, 60, 110])),
        "cloud_size": _log_uniform(rng, 40, 240),
        "cloud_stretch": float(rng.uniform(1, 4)),
        "cloud_edge": float(rng.uniform(0.4, 2.0)),
        "wind": (float(rng.normal(0, 0.2)), float(rng.normal(0, 0.05))),
        "cloud_evolution": _log_uniform(rng, 0.0005, 0.01),
    }


def _draw_camera(rng: np.random.Generator) -> dict:
    return {
        "jitter": _log_uniform(rng, 0.02, 0.5) if rng.random() < 0.6 else 0.0,
        "pan": float(rng.normal(0, 0.5)) if rng.random() < 0.25 else 0.0,
        "noise": _log_uniform(rng, 0.4, 4),
        "column_noise": _log_uniform(rng, 0.1, 1.5),
        "pixel_noise": _log_uniform(rng, 0.1, 1.5),
        "dead_pixels": int(rng.integers(0, 7)),
        "flickering_pixels": int(rng.integers(0, 7)),
    }


def _draw_ground(rng: np.random.Generator, *, height: int) -> dict:
    return {
        "horizon": float(rng.uniform(0.55, 0.95) * height) if rng.random() < 0.65 else None,
        "glow": float(rng.uniform(12, 45)),
        "tree_height": _log_uniform(rng, 6, 40),
        "tree_level": float(rng.uniform(150, 245)),
        "field_level": float(rng.uniform(60, 150)),
        "relief": float(rng.uniform(4, 22)),
    }


def _draw_targets(
    rng: np.random.Generator, *, pan: float, lowest: float, width: int, height: int, frames: int
) -> tuple[Target, ...]:
    """Draws one to six targets per 300 frames that cross the sky, some of them meeting another target."""
    top, bottom = 0.05 * height, max(lowest, 0.1 * height)
    targets = []
    for begin in range(0, frames, 300):
        end = min(begin + 300, frames)
        meeting = None
        for _ in range(int(rng.integers(1, 7))):
            fresh = (int(rng.integers(begin, end)), rng.uniform(0.1, 0.9) * width, rng.uniform(top, bottom))
            meeting = meeting if meeting is not None and rng.random() < 0.25 else fresh
            targets.append(_draw_target(rng, meeting, begin=begin, end=end, pan=pan))
    return tuple(targets)


def _draw_target(
    rng: np.random.Generator, meeting: tuple[int, float, float], *, begin: int, end: int, pan: float
) -> Target:
    """Draws a target that passes through `meeting`: frame, and x, y as seen by the panning camera."""
    moment, x, y = meeting
    late = rng.random() < 0.3
    start = int(rng.integers(begin, moment + 1)) if late else begin
    speed, heading = _log_uniform(rng, 0.05, 3.5), rng.normal(0, 0.5) + math.pi * rng.integers(0, 2)
    vx, vy = speed * math.cos(heading), speed * math.sin(heading)
    sigma = 0.7 + 2.3 * rng.beta(1.0, 3.0)
    return Target(
        x=float(x + pan * start - vx * (moment - start)),
        y=float(y - vy * (moment - start)),
        vx=vx + pan,
        vy=vy,
        weave_amplitude=float(rng.uniform(0, 10)) if rng.random() < 0.5 else 0.0,
        weave_period=_log_uniform(rng, 60, 400),
        sigma=float(sigma),
        elongation=float(min(rng.uniform(1, 2.2), 3.0 / sigma)),
        angle=float(rng.normal(0, 0.4)),
        scr=3 * 50 ** rng.random() ** 2,  # 3 to 150, two in five below 6: dim targets need most examples
        cold=bool(rng.random() < 0.12),
        behind_clouds=bool(rng.random() < 0.6),
        start=start,
        stop=end,
    )


def demo_scene() -> Scene:
    """Returns the scene of the embedded sample: ten seconds above a tree line with five targets.

    Targets 1 and 2 cross, 3 leaves to the right, 4 passes behind a cloud, 5 is dim.
    """
    return Scene(
        seed=4,
        sky=98.0,
        gradient=(4.0, 8.0),
        haze=1.2,
        cloud_cover=0.22,
        cloud_level=55.0,
        cloud_size=110.0,
        horizon=196.0,
        jitter=0.05,
        noise=0.9,
        dead_pixels=2,
        flickering_pixels=2,
        targets=(
            Target(x=70, y=140, vx=0.5, vy=-0.05, sigma=1.3, elongation=1.6, angle=-0.1, scr=50),
            Target(x=240, y=127, vx=-0.55, vy=0.03, sigma=1.4, elongation=1.3, angle=0.2, scr=45),
            Target(
                x=225,
                y=165,
                vx=0.6,
                vy=-0.05,
                sigma=1.5,
                elongation=1.5,
                scr=25,
                weave_amplitude=3,
                behind_clouds=False,
            ),
            Target(x=20, y=40, vx=0.75, vy=0.1, sigma=1.2, elongation=1.4, angle=0.1, scr=80),
            Target(x=100, y=105, vx=0.1, vy=-0.02, sigma=1.8, scr=3),
        ),
    )


PRESETS = {"demo": demo_scene}
"""Name → function that returns a scene designed by hand."""
