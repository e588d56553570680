"""pipeline.runner.latency."""

from __future__ import annotations

import bisect
from collections import deque
from itertools import accumulate

RECENT = 300
"""Frames over which the latency is told while a run goes on."""


class Latency:
    """Count, mean, maximum and quantiles of a duration in constant memory; quantiles are right to 6 %."""

    _EDGES = tuple(1e-6 * 10 ** (step / 20) for step in range(160))  # 1 µs to 90 s, 20 bins a decade
    _MIDDLES = tuple(edge * 10 ** (-1 / 40) for edge in _EDGES)

    def __init__(self):
        self._counts = [0] * (len(self._EDGES) + 1)
        self.count, self.total, self.maximum = 0, 0.0, 0.0

    def add(self, seconds: float) -> None:
        """Take in one duration."""
        self._counts[bisect.bisect_left(self._EDGES, seconds)] += 1
        self.count += 1
        self.total += seconds
        self.maximum = max(self.maximum, seconds)

    def quantile(self, share: float) -> float:
        """Seconds that `share` of the durations stay below; 0 without any."""
        wanted, seen = share * self.count, 0
        for count, middle in zip(self._counts, (*self._MIDDLES, self.maximum), strict=True):
            seen += count
            if count and seen >= wanted:
                return min(middle, self.maximum)
        return 0.0

    def summary(self) -> dict[str, float]:
        """Milliseconds, for run.json."""
        values = {
            "mean": self.total / max(self.count, 1),
            "p50": self.quantile(0.5),
            "p95": self.quantile(0.95),
            "p99": self.quantile(0.99),
            "max": self.maximum,
        }
        return {name: round(1e3 * value, 3) for name, value in values.items()}

    def cumulative(self) -> tuple[list[tuple[str, int]], float]:
        """For Prometheus: seconds and how many durations were no longer, and the sum of all."""
        below, buckets = list(accumulate(self._counts)), []
        for step in (step for step in range(len(self._EDGES)) if step >= 60 and step % 20 in (0, 8, 14)):
            buckets.append((f"{self._EDGES[step]:.3g}", below[step]))  # 1, 2.5 and 5 of each decade from 1 ms
        return [*buckets, ("+Inf", below[-1])], self.total


class RecentLatency:
    """Seconds from arrival to result of the last frames, for people who watch."""

    def __init__(self):
        self._seconds: deque[float] = deque(maxlen=RECENT)

    def add(self, seconds: float) -> None:
        """One more frame."""
        self._seconds.append(seconds)

    def __str__(self) -> str:
        """Median and 95th percentile; empty without frames."""
        known = sorted(self._seconds)
        if not known:
            return ""
        middle, high = (1e3 * known[int(share * (len(known) - 1))] for share in (0.5, 0.95))
        return f"latency {middle:.0f} ms, 95 % below {high:.0f} ms"
