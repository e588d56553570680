"""Maximum of 2×2 cells, the step from one scale to the next."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def halved(x: Tensor) -> Tensor:
    """Maxima of 2×2 cells without overlap: (B, C, H, W), sides even → (B, C, H / 2, W / 2).

    Without gradients by pairs of rows, then of columns: on a CPU about ten times faster than torch's pool,
    which remembers where each maximum was. With gradients that pool it is: among equal cells it sends the
    gradient to the first, as the published trainings did.
    """
    if torch.is_grad_enabled():
        return F.max_pool2d(x, 2)
    rows = torch.maximum(x[..., ::2, :], x[..., 1::2, :])
    return torch.maximum(rows[..., ::2], rows[..., 1::2])
