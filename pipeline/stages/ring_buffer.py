"""The ring buffer: the last T items of a sequence, and the arithmetic of windows.

A window of length T at position t holds the items t − T + 1 … t, oldest first. Positions before the
start of the sequence repeat its first item, so there is a window for every item.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def window_indices(position: int, length: int, *, stride: int = 1) -> list[int]:
    """Indices of the window at `position`, oldest first, clamped to 0 at the start.

    >>> window_indices(2, 5)
    [0, 0, 0, 1, 2]
    """
    return [max(position - stride * back, 0) for back in reversed(range(length))]


class Ring:
    """Keeps the last `length` − 1 tensors of a sequence so that each new one completes a window."""

    def __init__(self, length: int):
        if length < 1:
            raise ValueError(f"{length = }, expected 1 or more")
        self.length = length
        self._past: Tensor | None = None

    def windows(self, items: Tensor) -> Tensor:
        """Append a batch and return its windows: (B, …) in order → (B, length, …), oldest first.

        The first item of a sequence stands in for everything before it. Raises ValueError for items of
        another shape than those before.
        """
        import torch

        if self._past is None:
            # not expanded: what is joined below keeps the layout in memory that all its parts have
            self._past = torch.cat([items[:1]] * (self.length - 1)) if self.length > 1 else items[:0]
        elif self._past.shape[1:] != items.shape[1:]:
            before, now = tuple(self._past.shape[1:]), tuple(items.shape[1:])
            raise ValueError(f"items of shape {now} after {before}: a new size needs a reset first")
        sequence = torch.cat([self._past, items])  # (length − 1 + B, …)
        # a copy, so that the ring holds no more than its own items alive
        self._past = sequence[len(items) :].clone()
        return sequence.unfold(0, self.length, 1).movedim(-1, 1)

    @property
    def newest(self) -> Tensor | None:
        """The item appended last, None at the start of a sequence; needs a length of 2 or more."""
        return None if self._past is None else self._past[-1]

    def reset(self) -> None:
        """Forget everything: the next item starts a sequence."""
        self._past = None
