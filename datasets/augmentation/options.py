"""Options of clip augmentation: the `[augment]` section of a training configuration."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config.ranges import require_range


@dataclass(frozen=True)
class AugmentationOptions:
    """How training clips are augmented. A share is the fraction of clips that a change is applied to, 0 to 1.

    Raises ValueError if an option is out of its range or options exclude each other.
    """

    flip: bool = True
    """Mirror left to right and upside down, each with probability 0.5."""
    upright: bool = False
    """Never mirror upside down."""
    transpose: bool = False
    """Swap rows and columns with probability 0.5: with both mirrors, all rotations by 90°. Only for crops."""
    scale: tuple[float, float] = (0.8, 1.25)
    """Minimum and maximum factor of size; 1 and 1 for none."""
    aspect: float = 1.0
    """With `scale`: width over height is multiplied by 1 / aspect to aspect at constant area. Sizes can then
    not be inferred from the surroundings of a target, only from the target itself."""
    long_side: tuple[int, int] | None = None
    """Instead of `scale`: minimum and maximum length in pixels to which the longer side is resized, drawn
    uniformly; the aspect stays."""
    stretch: bool = False
    """Instead of `scale`: resize the whole frame to the size of the crop; the aspect changes."""
    on_target: float = 0.9
    """Share of the crops of frames with targets that contain a target; others are placed uniformly."""
    gain: float = 1.43
    """Contrast is multiplied by 1 / gain to gain."""
    offset: float = 0.12
    """Maximum change of brightness in either direction, as a share of the full scale."""
    strides: tuple[int, ...] = (1,)
    """Steps between the frames of a window, of which each clip draws one."""
    drop_share: float = 0.1
    """One of the past frames is lost and replaced by the one before it."""
    shift: int = 0
    """Maximum shift of whole frames in pixels along each axis."""
    pan_share: float = 0.15
    """The camera moves at constant speed through the window."""
    pan: float = 4.0
    """Maximum speed of the camera in pixels per frame along each axis."""
    noise_share: float = 0.2
    """Noise is added, new in each frame."""
    noise: float = 0.02
    """Maximum standard deviation of the noise, as a share of the full scale."""
    blur_share: float = 0.1
    """All frames are blurred."""
    blur: float = 1.0
    """Maximum sigma of the blur in pixels."""
    paste_share: float = 0.2
    """A target of another clip is pasted."""
    paste_gain: tuple[float, float] = (0.5, 1.3)
    """Minimum and maximum factor of its contrast."""

    def __post_init__(self):
        shares = ("on_target", "drop_share", "pan_share", "noise_share", "blur_share", "paste_share")
        require_range(self, *shares, low=0, high=1)
        require_range(self, "offset", "noise", low=0, high=1, expected="a share of the full scale, 0 to 1")
        for name in ("scale", "paste_gain"):
            low, high = getattr(self, name)
            self._require(name, 0.1 <= low <= high <= 10, "two factors from 0.1 to 10, the smaller first")
        if self.long_side:
            low, high = self.long_side
            self._require("long_side", 1 <= low <= high <= 10_000, "two lengths from 1, the smaller first")
        ways = [self.long_side is not None, self.stretch, tuple(self.scale) != (1, 1)]
        if sum(ways) > 1:
            raise ValueError("scale, long_side and stretch exclude each other; set scale = [1, 1]")
        require_range(self, "aspect", "gain", low=1, high=10)
        require_range(self, "pan", low=0, high=64)
        require_range(self, "blur", above=0, high=10)
        require_range(self, "shift", low=0, high=10_000)
        if self.aspect > 1 and sum(ways[:2]):
            raise ValueError("aspect goes with scale, not with long_side or stretch; set aspect = 1")
        self._require("strides", bool(self.strides) and min(self.strides) >= 1, "one or more numbers from 1")

    def _require(self, name: str, right: bool, allowed: str) -> None:
        if not right:
            raise ValueError(f"{name} = {getattr(self, name)}, expected {allowed}")
