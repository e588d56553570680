"""Reference for Tridos: the plain network, and Tridos with its objective, trained and evaluated equally.

    python -m tests.benchmarks.plain_network [options of tests.benchmarks.ablations]

trains `full`, `peaks` and `plain` on one budget and prints their table.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from detectors.networks.plain.network import CERTAIN, local_maxima
from detectors.networks.tridos.head import STRIDE
from tests.benchmarks.ablated import WindowStream

if TYPE_CHECKING:
    from pipeline.system import cli

COMPARED = ("full", "peaks", "plain")
"""Variants of `tests.benchmarks.ablations`."""


class WithPeaks(nn.Module):
    """A Tridos with the objective of the plain network: objectness alone determines the score, by peaks."""

    peak_cell = STRIDE

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network, self.frames, self.num_classes = network, network.frames, network.num_classes

    def forward(self, clip: Tensor) -> Tensor:
        """Clip (B, 3, T, H, W) → raw (B, 6, H / 8, W / 8), float32; in evaluation only local maxima count."""
        raw = self.network(clip).float()
        peaks = raw[:, 4:5] if self.training else local_maxima(raw[:, 4:5])
        return torch.cat([raw[:, :4], peaks, torch.full_like(peaks, CERTAIN)], dim=1)

    def stream(self) -> WindowStream:
        """Returns a stream, which takes frames one by one and computes each window in full."""
        return WindowStream(self)


def parser() -> cli.Parser:
    """Returns the parser of the command."""
    from tests.benchmarks import ablations

    return ablations.parser()


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    from tests.benchmarks import ablations

    given = sys.argv[1:] if arguments is None else arguments
    return ablations.main([*given, "--only", *COMPARED])


if __name__ == "__main__":
    sys.exit(main())
