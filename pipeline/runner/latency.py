"""Distributions of durations in constant memory."""

from __future__ import annotations

import bisect
from collections import deque
from itertools import accumulate

RECENT = 300
"""Number of frames over which the progress line shows the latency."""


class Latency:
    """Histogram of a duration: count, sum, maximum and quantiles with a relative error of at most 6 %."""

    _EDGES = tuple(1e-6 * 10 ** (step / 20) for step in range(160))  # 1 µs to 90 s, 20 bins a decade
    _MIDDLES = tuple(edge * 10 ** (-1 / 40) for edge in _EDGES)

    def __init__(self) -> None:
        self._counts = [0] * (len(self._EDGES) + 1)
        self.count, self.total, self.maximum = 0, 0.0, 0.0

    def add(self, seconds: float) -> None:
        """Adds one duration."""
        self._counts[bisect.bisect_left(self._EDGES, seconds)] += 1
        self.count += 1
        self.total += seconds
        self.maximum = max(self.maximum, seconds)

    def quantile(self, share: float) -> float:
        """Returns the quantile in seconds; 0 if no duration was added."""
        wanted, seen = share * self.count, 0
        for count, middle in zip(self._counts, (*self._MIDDLES, self.maximum), strict=True):
            seen += count
            if count and seen >= wanted:
                return min(middle, self.maximum)
        return 0.0

    def summary(self) -> dict[str, float]:
        """Returns mean, quantiles and maximum in milliseconds, for run.json."""
        values = {
            "mean": self.total / max(self.count, 1),
            "p50": self.quantile(0.5),
            "p95": self.quantile(0.95),
            "p99": self.quantile(0.99),
            "max": self.maximum,
        }
        return {name: round(1e3 * value, 3) for name, value in values.items()}

    def cumulative(self) -> tuple[list[tuple[str, int]], float]:
        """Returns the buckets of a Prometheus histogram and the sum of all durations, both in seconds."""
        below, buckets = list(accumulate(self._counts)), []
        for step in (step for step in range(len(self._EDGES)) if step >= 60 and step % 20 in (0, 8, 14)):
            buckets.append((f"{self._EDGES[step]:.3g}", below[step]))  # 1, 2.5 and 5 of each decade from 1 ms
        return [*buckets, ("+Inf", below[-1])], self.total


class RecentLatency:
    """Latency from arrival to result of the last `RECENT` frames, as text for the progress line."""

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=RECENT)

    def add(self, seconds: float) -> None:
        """Adds the latency of one frame."""
        self._seconds.append(seconds)

    def __str__(self) -> str:
        """Median and 95th percentile; empty without frames."""
        known = sorted(self._seconds)
        if not known:
            return ""
        middle, high = (1e3 * known[int(share * (len(known) - 1))] for share in (0.5, 0.95))
        return f"latency {middle:.0f} ms, 95 % below {high:.0f} ms"
