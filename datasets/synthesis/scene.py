"""The description of a synthetic infrared sequence: what stands in the picture, what flies through it.

Levels are grey levels of an 8-bit picture whatever the output's depth; they are scaled to the full scale
when the picture is digitised. Positions are source pixels as in `pipeline.structures.frame`, in the
picture of frame 0: the camera's later motion carries scenery and targets alike. Times are counted in frames.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from fractions import Fraction

import numpy as np

from pipeline.system.errors import UsageError

SUPPORT = 2.5
"""A target's support is the ellipse at this many standard deviations of its point spread."""
MIN_SIDE = 4.0
"""Sides of a box are never shorter than this many pixels, before `Scene.margin` is added."""


@dataclass(frozen=True)
class Target:
    """One small source of heat (or cold) with a Gaussian point spread on a smooth path."""

    x: float
    """Column of the centre at frame `start`, pixels."""
    y: float
    """Row of the centre at frame `start`, pixels."""
    vx: float = 0.0
    """Pixels per frame to the right."""
    vy: float = 0.0
    """Pixels per frame downwards."""
    weave: float = 0.0
    """Manoeuvre: amplitude in pixels of a slow swing across the direction of flight."""
    period: float = 120.0
    """Frames per swing."""
    sigma: float = 1.5
    """Standard deviation of the point spread across its long axis, pixels."""
    elongation: float = 1.0
    """Long axis over short axis of the point spread, 1 or more."""
    angle: float = 0.0
    """Direction of the long axis in radians from the x axis, clockwise as seen on screen."""
    scr: float = 10.0
    """Signal-to-clutter ratio: peak amplitude over the standard deviation of the clutter round the target."""
    cold: bool = False
    """Darker than its surroundings instead of brighter."""
    behind_clouds: bool = True
    """Dimmed by clouds; otherwise it flies in front of them."""
    start: int = 0
    """First frame in which it exists."""
    stop: int | None = None
    """Frame from which it exists no more; None: to the end."""

    def __post_init__(self):
        _require(self.sigma > 0, f"target sigma is {self.sigma}", "give more than 0 pixels")
        _require(self.elongation >= 1, f"target elongation is {self.elongation}", "give 1 or more")
        _require(self.period > 0, f"target period is {self.period}", "give more than 0 frames")
        _require(self.scr >= 0, f"target scr is {self.scr}", "give 0 or more")

    def position(self, index: int) -> tuple[float, float]:
        """Centre x, y in pixels of frame 0 at frame `index`."""
        time = index - self.start
        speed = math.hypot(self.vx, self.vy)
        ahead = (self.vx / speed, self.vy / speed) if speed else (1.0, 0.0)
        swing = self.weave * math.sin(2 * math.pi * time / self.period)
        return self.x + self.vx * time - ahead[1] * swing, self.y + self.vy * time + ahead[0] * swing

    @property
    def covariance(self) -> tuple[float, float, float]:
        """xx, xy, yy of the point spread, squared pixels."""
        long, short = (self.sigma * self.elongation) ** 2, self.sigma**2
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        return (
            long * cos * cos + short * sin * sin,
            (long - short) * cos * sin,
            long * sin * sin + short * cos * cos,
        )

    @property
    def extent(self) -> tuple[float, float]:
        """Half the width and height of the box round the support, pixels; MIN_SIDE / 2 at least."""
        xx, _, yy = self.covariance
        return max(SUPPORT * math.sqrt(xx), MIN_SIDE / 2), max(SUPPORT * math.sqrt(yy), MIN_SIDE / 2)


@dataclass(frozen=True)
class Scene:
    """All settings of a synthetic sequence; UsageError for one that makes no sense."""

    seed: int = 0
    """Everything random is drawn from it: the same scene gives the same pixels."""
    width: int = 320
    """Pixels."""
    height: int = 256
    """Pixels."""
    frames: int = 300
    """Length of the sequence."""
    rate: Fraction = Fraction(30)
    """Frames per second."""
    bits: int = 8
    """Significant bits: 8 gives uint8; 9 to 16 give uint16 with full scale 2**bits - 1."""
    margin: float = 1.5
    """Pixels that a box leaves free on each side of the support, as boxes drawn by hand do."""
    targets: tuple[Target, ...] = ()
    """Their ids are their places in this tuple, counted from 1."""
    ceiling: float = 300.0
    """Most that a target adds or takes away, levels; what lies beyond black or white saturates."""

    sky: float = 100.0
    """Level of the open sky at the top of the picture."""
    gradient: tuple[float, float] = (0.0, 0.0)
    """Change of the sky's level across the whole width and height, levels."""
    haze: float = 1.5
    """Standard deviation of the faint mottling of the open sky, levels."""
    clouds: float = 0.0
    """Share of the sky that they cover, 0 to below 1."""
    cloud_level: float = 60.0
    """What the densest cloud adds to the sky, levels; negative for cold clouds."""
    cloud_size: float = 120.0
    """Outer scale of the clouds, pixels: nothing of them is much larger."""
    cloud_stretch: float = 2.0
    """Width over height of the cloud forms."""
    cloud_edge: float = 1.2
    """Softness of cloud edges, standard deviations of the noise that forms them."""
    opacity: float = 6.0
    """Optical depth of the densest cloud: a target behind it keeps exp(-opacity) of its signal."""
    wind: tuple[float, float] = (0.15, 0.02)
    """Drift of the clouds in x and y, pixels per frame."""
    evolution: float = 0.003
    """Speed at which the clouds change their form, radians per frame; 2π is a full cycle."""

    horizon: float | None = None
    """Row of the skyline in frame 0, pixels; None for a picture of nothing but sky."""
    glow: float = 30.0
    """The sky darkens towards the skyline over this many rows, as automatic gain makes it."""
    trees: float = 24.0
    """Height of the bright belt below the skyline, pixels; its roughness grows with it."""
    tree_level: float = 210.0
    """Level of that belt."""
    field_level: float = 125.0
    """Level of the ground below it."""
    relief: float = 12.0
    """Standard deviation of the ground's texture, levels."""

    jitter: float = 0.0
    """Camera: step of the random walk in x and y, standard deviation in pixels per frame."""
    pan: float = 0.0
    """Camera: steady turn to the right, pixels per frame."""
    noise: float = 1.0
    """Temporal white Gaussian noise, standard deviation in levels."""
    column_noise: float = 0.3
    """Fixed offset of each column, standard deviation in levels."""
    pixel_noise: float = 0.3
    """Fixed offset of each pixel, standard deviation in levels."""
    dead: int = 0
    """Pixels stuck at black or white."""
    flickering: int = 0
    """Pixels that jump now and then."""

    def __post_init__(self):
        for name, least, most in _RANGES:
            value = getattr(self, name)
            allowed = f"give {least} to {most}" if most < math.inf else f"give {least} or more"
            _require(least <= value <= most, f"{name} is {value}", allowed)
        defects = self.dead + self.flickering
        pixels = self.width * self.height
        _require(defects <= pixels, f"{defects} pixels are dead or flickering", f"give {pixels} at most")
        _require(0 < self.rate <= 1000, f"rate is {self.rate}", "give more than 0 and up to 1000")
        for name in ("cloud_size", "cloud_stretch", "cloud_edge", "glow"):
            _require(getattr(self, name) > 0, f"{name} is {getattr(self, name)}", "give more than 0")

    @classmethod
    def random(cls, seed: int, **fixed) -> Scene:
        """A varied scene for training, drawn from `seed`; keywords fix fields of `Scene` instead.

        Point spreads span 0.7 to 3 pixels and boxes 7 to 18, small ones being the most frequent. Levels
        follow uncooled cameras of 320 × 256. Raises UsageError for a field that does not exist.
        """
        unknown = sorted(set(fixed) - {field.name for field in fields(cls)})
        _require(not unknown, f"unknown scene setting {unknown}", "see the fields of Scene")
        _require(seed >= 0, f"seed is {seed}", "give 0 or more")
        rng = np.random.default_rng([seed, 0])
        settings = {"seed": seed, **_draw_sky(rng), **_draw_camera(rng)}
        frame = {name: fixed.get(name, getattr(cls, name)) for name in ("width", "height", "frames")}
        settings |= _draw_ground(rng, height=frame["height"])
        settings |= fixed
        if "targets" not in fixed:
            horizon = settings["horizon"]
            lowest = 0.95 * frame["height"] if horizon is None else horizon - 4
            settings["targets"] = _draw_targets(rng, pan=settings["pan"], lowest=lowest, **frame)
        return cls(**settings)


_RANGES = (
    ("seed", 0, math.inf),
    ("width", 16, 8192),
    ("height", 16, 8192),
    ("frames", 1, math.inf),
    ("bits", 8, 16),
    ("margin", 0, math.inf),
    ("ceiling", 0, math.inf),
    ("haze", 0, math.inf),
    ("clouds", 0, 0.99),
    ("opacity", 0, math.inf),
    ("trees", 0, math.inf),
    ("relief", 0, math.inf),
    ("jitter", 0, math.inf),
    ("noise", 0, math.inf),
    ("column_noise", 0, math.inf),
    ("pixel_noise", 0, math.inf),
    ("dead", 0, math.inf),
    ("flickering", 0, math.inf),
)


def _require(fact: bool, complaint: str, remedy: str) -> None:
    if not fact:
        raise UsageError(f"{complaint}; {remedy}")


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(math.exp(rng.uniform(math.log(low), math.log(high))))


def _draw_sky(rng: np.random.Generator) -> dict:
    overcast = rng.random() < 0.6
    return {
        "sky": float(rng.uniform(35, 120)),
        "gradient": (float(rng.normal(0, 8)), float(rng.normal(0, 12))),
        "haze": _log_uniform(rng, 0.3, 5),
        "clouds": float(rng.uniform(0.05, 0.6)) if overcast else 0.0,
        "cloud_level": float(rng.choice([-25, 15, 30, 60, 110])),
        "cloud_size": _log_uniform(rng, 40, 240),
        "cloud_stretch": float(rng.uniform(1, 4)),
        "cloud_edge": float(rng.uniform(0.4, 2.0)),
        "wind": (float(rng.normal(0, 0.2)), float(rng.normal(0, 0.05))),
        "evolution": _log_uniform(rng, 0.0005, 0.01),
    }


def _draw_camera(rng: np.random.Generator) -> dict:
    return {
        "jitter": _log_uniform(rng, 0.02, 0.5) if rng.random() < 0.6 else 0.0,
        "pan": float(rng.normal(0, 0.5)) if rng.random() < 0.25 else 0.0,
        "noise": _log_uniform(rng, 0.4, 4),
        "column_noise": _log_uniform(rng, 0.1, 1.5),
        "pixel_noise": _log_uniform(rng, 0.1, 1.5),
        "dead": int(rng.integers(0, 7)),
        "flickering": int(rng.integers(0, 7)),
    }


def _draw_ground(rng: np.random.Generator, *, height: int) -> dict:
    return {
        "horizon": float(rng.uniform(0.55, 0.95) * height) if rng.random() < 0.65 else None,
        "glow": float(rng.uniform(12, 45)),
        "trees": _log_uniform(rng, 6, 40),
        "tree_level": float(rng.uniform(150, 245)),
        "field_level": float(rng.uniform(60, 150)),
        "relief": float(rng.uniform(4, 22)),
    }


def _draw_targets(
    rng: np.random.Generator, *, pan: float, lowest: float, width: int, height: int, frames: int
) -> tuple[Target, ...]:
    """One to six targets for each 300 frames, all crossing the sky, some meeting another on their way."""
    top, bottom = 0.05 * height, max(lowest, 0.1 * height)
    targets = []
    for begin in range(0, frames, 300):
        end = min(begin + 300, frames)
        meeting = None
        for _ in range(int(rng.integers(1, 7))):
            fresh = (rng.integers(begin, end), rng.uniform(0.1, 0.9) * width, rng.uniform(top, bottom))
            meeting = meeting if meeting is not None and rng.random() < 0.25 else fresh
            targets.append(_draw_target(rng, meeting, begin=begin, end=end, pan=pan))
    return tuple(targets)


def _draw_target(rng: np.random.Generator, meeting, *, begin: int, end: int, pan: float) -> Target:
    """A target that passes `meeting` (frame, x, y as seen by the panning camera) on its way."""
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
        weave=float(rng.uniform(0, 10)) if rng.random() < 0.5 else 0.0,
        period=_log_uniform(rng, 60, 400),
        sigma=float(sigma),
        elongation=float(min(rng.uniform(1, 2.2), 3.0 / sigma)),
        angle=float(rng.normal(0, 0.4)),
        scr=3 * 50 ** rng.random() ** 2,  # 3 to 150, two in five below 6: what is dim needs most examples
        cold=bool(rng.random() < 0.12),
        behind_clouds=bool(rng.random() < 0.6),
        start=start,
        stop=end,
    )


def demo() -> Scene:
    """The scene of the sample: ten seconds over a tree line, five targets.

    1 and 2 cross, 3 leaves to the right, 4 passes behind a cloud, 5 is dim.
    """
    return Scene(
        seed=4,
        sky=98.0,
        gradient=(4.0, 8.0),
        haze=1.2,
        clouds=0.22,
        cloud_level=55.0,
        cloud_size=110.0,
        horizon=196.0,
        jitter=0.05,
        noise=0.9,
        dead=2,
        flickering=2,
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
                weave=3,
                behind_clouds=False,
            ),
            Target(x=20, y=40, vx=0.75, vy=0.1, sigma=1.2, elongation=1.4, angle=0.1, scr=80),
            Target(x=100, y=105, vx=0.1, vy=-0.02, sigma=1.8, scr=3),
        ),
    )


PRESETS = {"demo": demo}
"""Scenes made by hand, by name."""
