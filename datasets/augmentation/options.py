"""How training clips are varied: the `[augment]` section of a training configuration."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Augment:
    """How training clips are varied. A share is the part of all clips that a change is made to, 0 to 1."""

    flip: bool = True
    """Mirror left to right and upside down, each one time in two."""
    upright: bool = False
    """Never upside down."""
    transpose: bool = False
    """Make rows columns, one time in two: with both mirrors, all turns by a quarter. For crops alone."""
    scale: tuple[float, float] = (0.8, 1.25)
    """Least and greatest factor of size; 1 and 1 to leave it."""
    aspect: float = 1.0
    """With `scale`: width over height is multiplied by 1 / aspect to aspect, the area kept. A size learned
    from the surroundings of a target is then wrong, and only the target tells it."""
    long_side: tuple[int, int] | None = None
    """In place of `scale`: least and greatest length, pixels, that the longer side is resized to, all alike
    often; the aspect is kept."""
    stretch: bool = False
    """In place of `scale`: the whole picture is resized to the crop's size; the aspect is not kept."""
    on_target: float = 0.9
    """Share of the crops of pictures with targets that are placed round one of them; others lie anywhere."""
    gain: float = 1.43
    """Contrast is multiplied by 1 / gain to gain."""
    offset: float = 0.12
    """Brightness is moved by up to this share of the full scale, either way."""
    strides: tuple[int, ...] = (1,)
    """Steps between the frames of a window; each clip draws one of them."""
    drop_share: float = 0.1
    """One of the past frames is lost: the frame before stands in for it."""
    shift: int = 0
    """Pixels that the picture is moved by at most, each way, for whole frames."""
    pan_share: float = 0.15
    """The camera moves evenly through the window."""
    pan: float = 4.0
    """Its greatest speed, pixels per frame along each axis."""
    noise_share: float = 0.2
    """Noise is added, new in each frame."""
    noise: float = 0.02
    """Its greatest standard deviation, as a share of the full scale."""
    blur_share: float = 0.1
    """All frames are blurred."""
    blur: float = 1.0
    """The greatest sigma, pixels."""
    paste_share: float = 0.2
    """A target of another clip is laid on."""
    paste_gain: tuple[float, float] = (0.5, 1.3)
    """Least and greatest factor of its contrast."""

    def __post_init__(self):
        for name in ("on_target", "drop_share", "pan_share", "noise_share", "blur_share", "paste_share"):
            self._require(name, 0 <= getattr(self, name) <= 1, "0 to 1")
        for name in ("offset", "noise"):
            self._require(name, 0 <= getattr(self, name) <= 1, "a share of the full scale, 0 to 1")
        for name in ("scale", "paste_gain"):
            low, high = getattr(self, name)
            self._require(name, 0.1 <= low <= high <= 10, "two factors from 0.1 to 10, the smaller first")
        if self.long_side:
            low, high = self.long_side
            self._require("long_side", 1 <= low <= high <= 10_000, "two lengths from 1, the smaller first")
        ways = [self.long_side is not None, self.stretch, tuple(self.scale) != (1, 1)]
        if sum(ways) > 1:
            raise ValueError("scale, long_side and stretch exclude each other; set scale = [1, 1]")
        self._require("aspect", 1 <= self.aspect <= 10, "1 to 10")
        if self.aspect > 1 and sum(ways[:2]):
            raise ValueError("aspect goes with scale, not with long_side or stretch; set aspect = 1")
        self._require("gain", 1 <= self.gain <= 10, "1 to 10")
        self._require("pan", 0 <= self.pan <= 64, "0 to 64")
        self._require("blur", 0 < self.blur <= 10, "more than 0 and up to 10")
        self._require("shift", 0 <= self.shift <= 10_000, "0 or more pixels")
        self._require("strides", bool(self.strides) and min(self.strides) >= 1, "one or more numbers from 1")

    def _require(self, name: str, right: bool, allowed: str) -> None:
        if not right:
            raise ValueError(f"{name} = {getattr(self, name)}, expected {allowed}")
