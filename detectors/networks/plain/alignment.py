"""Alignment of the stacked frames with the newest one, by whole pixels, against the motion of the camera.

The shift is the peak of the phase correlation (Kuglin and Hines, "The phase correlation image alignment
method", 1975) of the frames without their low frequencies, at half their size.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

LOCAL = 9
"""Side of the mean, in pixels of half size, that is subtracted from each pixel."""
MIN_DEVIATIONS = 8.0
"""Minimum height of the peak in standard deviations of the correlation of independent noise; frames with a
lower peak are not moved. Those of the same scene have 30 and more."""
MAX_SHARE = 0.25
"""Maximum shift as a fraction of the side of the frame; frames with a larger one are not moved."""


@torch.no_grad()
def align(stacked: Tensor) -> Tensor:
    """Moves all frames but the last of stacks (B, T, H, W), so that their background lies as in the last.

    H and W are even. Uncovered pixels repeat the edge.
    """
    shifts = camera_shifts(stacked.float())
    if not shifts.any():
        return stacked
    aligned = stacked.clone()
    for sample, frame in shifts.any(dim=-1).nonzero().tolist():
        aligned[sample, frame] = _moved(stacked[sample, frame], *shifts[sample, frame].tolist())
    return aligned


def camera_shifts(stacked: Tensor) -> Tensor:
    """Returns the shift (x, y) of each frame but the last that aligns it with the last, (B, T - 1, 2) int64.

    `stacked` is (B, T, H, W) float32. The shift is 0 if it is not certain, see `MIN_DEVIATIONS` and
    `MAX_SHARE`.
    """
    half = F.avg_pool2d(stacked, 2)
    detail = half - F.avg_pool2d(half, LOCAL, stride=1, padding=LOCAL // 2, count_include_pad=False)
    height, width = half.shape[-2:]
    window = torch.outer(*(torch.hann_window(side, device=half.device) for side in (height, width)))
    spectrum = torch.fft.rfft2(detail * window)
    cross = spectrum[:, -1:] * spectrum[:, :-1].conj()
    correlation = torch.fft.irfft2(cross / cross.abs().clamp(min=1e-12), s=(height, width))
    peak, place = correlation.flatten(2).max(dim=-1)
    row, column = place // width, place % width
    shift = []
    for position, size, axis in ((column, width, -1), (row, height, -2)):
        near = [_correlation_at(correlation, row, column, axis, step) for step in (-1, 1)]
        fine = (near[1] - near[0]) / (2 * (2 * peak - near[0] - near[1])).clamp(min=1e-6)
        full = 2 * (torch.where(position > size // 2, position - size, position) + fine.clamp(-0.5, 0.5))
        shift.append((full.round().long(), 2 * size * MAX_SHARE))
    certain = peak * math.sqrt(height * width) >= MIN_DEVIATIONS
    for amount, limit in shift:
        certain = certain & (amount.abs() <= limit)
    return torch.stack([amount * certain for amount, _ in shift], dim=-1)


def _correlation_at(correlation: Tensor, row: Tensor, column: Tensor, axis: int, step: int) -> Tensor:
    """Returns the correlation (B, T - 1) beside a place, `step` along an axis, with wrap-around."""
    height, width = correlation.shape[-2:]
    if axis == -1:
        column = (column + step) % width
    else:
        row = (row + step) % height
    return correlation.flatten(2).gather(2, (row * width + column)[..., None])[..., 0]


def _moved(frame: Tensor, right: int, down: int) -> Tensor:
    """Returns a frame (H, W) moved by whole pixels; uncovered pixels repeat the edge."""
    rows, columns = (torch.arange(side, device=frame.device) for side in frame.shape)
    rows, columns = (rows - down).clamp(0, len(rows) - 1), (columns - right).clamp(0, len(columns) - 1)
    return frame[rows][:, columns]
