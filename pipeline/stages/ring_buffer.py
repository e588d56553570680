"""Ring buffer of the last T items of a sequence, and the index arithmetic of temporal windows.

A window of length T at position t holds the items t − T + 1 … t, oldest first. Positions before the start of
the sequence repeat its first item, so that every item has a window.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def window_indices(position: int, length: int, *, stride: int = 1) -> list[int]:
    """Returns the indices of the window at `position`, oldest first, clamped to 0 at the start.

    >>> window_indices(2, 5)
    [0, 0, 0, 1, 2]
    """
    return [max(position - stride * back, 0) for back in reversed(range(length))]


class RingBuffer:
    """Keeps the last `length` − 1 tensors of a sequence, so that each new one completes a window."""

    def __init__(self, length: int):
        """Raises ValueError if `length` is less than 1."""
        if length < 1:
            raise ValueError(f"{length = }, expected 1 or more")
        self.length = length
        self._past: Tensor | None = None

    def push(self, items: Tensor) -> Tensor:
        """Appends a batch (B, …) in order and returns its windows (B, length, …), oldest first.

        The first item of a sequence also fills all positions before it. Raises ValueError if the items differ
        in shape from those before.
        """
        import torch

        if self._past is None:
            # not expanded: the concatenation below keeps the memory layout that all its parts share
            self._past = torch.cat([items[:1]] * (self.length - 1)) if self.length > 1 else items[:0]
        elif self._past.shape[1:] != items.shape[1:]:
            before, now = tuple(self._past.shape[1:]), tuple(items.shape[1:])
            raise ValueError(f"items of shape {now} after {before}: a new size needs a reset first")
        sequence = torch.cat([self._past, items])  # (length − 1 + B, …)
        # a copy, so that the buffer keeps only its own items alive
        self._past = sequence[len(items) :].clone()
        return sequence.unfold(0, self.length, 1).movedim(-1, 1)

    @property
    def latest(self) -> Tensor | None:
        """The item appended last, None at the start of a sequence; requires a `length` of 2 or more."""
        return None if self._past is None else self._past[-1]

    def reset(self) -> None:
        """Starts a new sequence."""
        self._past = None
