"""Edge-saliency images from the local structure tensor: the second input of DRTENet.

Its authors take edges from local structure tensors but published neither images nor recipe. The recipe here
is this project's own: derivatives of the Gaussian-smoothed picture, their products averaged in a Gaussian
window, and of the resulting two by two tensor the square root of an eigenvalue measure, divided by its
maximum over the picture. Computed on the source frame and then moved with it, the map knows no edge where the
frame was padded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

Measure = Literal["largest", "difference", "smallest", "trace"]

MEASURES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "largest": lambda mean, spread: mean + spread,
    "difference": lambda mean, spread: 2 * spread,
    "smallest": lambda mean, spread: np.maximum(mean - spread, 0),
    "trace": lambda mean, spread: 2 * mean,
}
"""Name → what is kept of the eigenvalues a ≥ b ≥ 0, from half their sum and half their difference.

a ("largest") is high on every contrast, edge or point. The difference of both prefers straight edges and
leaves a hole in the middle of small targets. b ("smallest") is high on points and corners alone. Their sum
("trace") is the mean squared gradient.
"""


def edge_saliency(
    frame: np.ndarray, *, measure: Measure = "largest", smoothing: float = 1.0, window: float = 1.0
) -> np.ndarray:
    """Frame (H, W) or (H, W, 3) R, G, B, uint8, uint16 or float32 → saliency (H, W) float32 in [0, 1].

    The maximum is 1.
    `smoothing` is the standard deviation, in pixels, of the Gaussian before the derivatives: larger hides
    noise and, beyond about a target's radius, targets. `window` is that of the Gaussian over the products of
    derivatives: the distance within which directions are compared, and by which edges are widened; 0 leaves
    either out. Gain, offset and bit depth of the frame do not matter. A frame of one grey value gives zeros.

    Raises ValueError for other types or shapes, an unknown measure or a negative scale.
    """
    if measure not in MEASURES:
        raise ValueError(f"{measure = }, expected one of {', '.join(MEASURES)}")
    if not (smoothing >= 0 and window >= 0):
        raise ValueError(f"{smoothing = }, {window = }, expected 0 or more")
    grey = _blurred(_grey(frame), smoothing)
    # Scharr's kernels respond alike to edges of all directions; the border repeats, so it has no edge
    along_x = cv2.Scharr(grey, cv2.CV_32F, 1, 0, borderType=cv2.BORDER_REPLICATE)
    along_y = cv2.Scharr(grey, cv2.CV_32F, 0, 1, borderType=cv2.BORDER_REPLICATE)
    xx = _blurred(cv2.multiply(along_x, along_x), window)
    yy = _blurred(cv2.multiply(along_y, along_y), window)
    xy = _blurred(cv2.multiply(along_x, along_y), window)
    spread = cv2.magnitude((xx - yy) * 0.5, xy)
    saliency = cv2.sqrt(MEASURES[measure]((xx + yy) * 0.5, spread))
    peak = float(saliency.max())
    return saliency / peak if peak > 0 else saliency


def edge_images(
    frames: Sequence[np.ndarray], *, measure: Measure = "largest", smoothing: float = 1.0, window: float = 1.0
) -> Tensor:
    """Frames of one size → edge images for DRTENet, (B, 3, H, W) float32 in [0, 1] with three equal channels.

    Options and errors are those of `edge_saliency`.
    """
    import torch

    options = {"measure": measure, "smoothing": smoothing, "window": window}
    maps = np.stack([edge_saliency(frame, **options) for frame in frames])
    return torch.from_numpy(maps)[:, None].repeat(1, 3, 1, 1)


def _grey(frame: np.ndarray) -> np.ndarray:
    """(H, W) or (H, W, 3) uint8, uint16 or float32 → (H, W) float32 from 0 up."""
    if frame.dtype not in (np.uint8, np.uint16, np.float32):
        raise ValueError(f"frame is {frame.dtype}, expected uint8, uint16 or float32")
    if frame.ndim == 3 and frame.shape[2] == 3:
        frame = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    if frame.ndim != 2 or not frame.size:
        raise ValueError(f"frame is {frame.shape}, expected (H, W) or (H, W, 3)")
    return (frame - frame.min()).astype(np.float32)  # so that rounding errors are small against any contrast


def _blurred(picture: np.ndarray, deviation: float) -> np.ndarray:
    if deviation == 0:
        return picture
    return cv2.GaussianBlur(picture, (0, 0), deviation, borderType=cv2.BORDER_REPLICATE)
