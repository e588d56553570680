"""Edge-saliency images from the local structure tensor: the second input of DRTENet.

The authors use local structure tensors but published neither images nor method; the method here is this
project's own. Products of the derivatives of the Gaussian-smoothed image are averaged in a Gaussian window.
The square root of an eigenvalue measure of the resulting 2×2 tensor is divided by its maximum over the image.
The map is computed on the source frame and resampled with it, so that padding causes no edges.
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
"""Name → measure of the eigenvalues a ≥ b ≥ 0 from (a + b) / 2 and (a - b) / 2.

a ("largest") is high on all contrasts, edges and points. a - b ("difference") prefers straight edges and is
low in the middle of small targets. b ("smallest") is high on points and corners only. a + b ("trace") is the
mean squared gradient.
"""


def edge_saliency(
    frame: np.ndarray, *, measure: Measure = "largest", smoothing: float = 1.0, window: float = 1.0
) -> np.ndarray:
    """Frame (H, W) or (H, W, 3) R, G, B, uint8, uint16 or float32 → saliency (H, W) float32 in [0, 1].

    The maximum is 1; a constant frame gives zeros. Gain, offset and bit depth of the frame have no effect.
    `smoothing` is the standard deviation in pixels of the Gaussian before the derivatives: larger values
    suppress noise and, beyond about the radius of a target, targets. `window` is that of the Gaussian over
    the products of derivatives: the distance within which directions are compared and by which edges are
    widened. 0 disables either.

    Raises ValueError for other dtypes or shapes, an unknown measure or a negative scale.
    """
    if measure not in MEASURES:
        raise ValueError(f"{measure = }, expected one of {', '.join(MEASURES)}")
    if not (smoothing >= 0 and window >= 0):
        raise ValueError(f"{smoothing = }, {window = }, expected 0 or more")
    grey = _blurred(_grey(frame), smoothing)
    # Scharr's kernels respond equally to edges of all directions; the replicated border causes no edge
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
    """Frames of one size → edge images for DRTENet, (B, 3, H, W) float32 in [0, 1], three equal channels.

    Options and errors are those of `edge_saliency`.
    """
    import torch

    maps = np.stack(
        [edge_saliency(frame, measure=measure, smoothing=smoothing, window=window) for frame in frames]
    )
    return torch.from_numpy(maps)[:, None].repeat(1, 3, 1, 1)


def _grey(frame: np.ndarray) -> np.ndarray:
    """(H, W) or (H, W, 3) uint8, uint16 or float32 → (H, W) float32 with minimum 0."""
    if frame.dtype not in (np.uint8, np.uint16, np.float32):
        raise ValueError(f"frame is {frame.dtype}, expected uint8, uint16 or float32")
    if frame.ndim == 3 and frame.shape[2] == 3:
        frame = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    if frame.ndim != 2 or not frame.size:
        raise ValueError(f"frame is {frame.shape}, expected (H, W) or (H, W, 3)")
    return (frame - frame.min()).astype(np.float32)  # keeps rounding errors small relative to any contrast


def _blurred(image: np.ndarray, deviation: float) -> np.ndarray:
    """Gaussian blur of (H, W); `deviation` is in pixels, 0 disables it."""
    if deviation == 0:
        return image
    return cv2.GaussianBlur(image, (0, 0), deviation, borderType=cv2.BORDER_REPLICATE)
