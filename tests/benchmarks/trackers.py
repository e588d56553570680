"""Compares trackers on invented scenarios and on the detections of real clips.

    python -m tests.benchmarks.trackers                                     # the scenarios, seeds 3 to 5
    python -m tests.benchmarks.trackers --scenarios crossings blink --set acceleration=0.2
    python -m tests.benchmarks.trackers --real drone-ir=found.json --data DIR

FILE of a real set are COCO results on its split val; DIR is the folder of the data sets.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import trackers
from pipeline.config.parsing import override, parse_setting
from pipeline.evaluation.detection.tables import format_number, format_table
from pipeline.structures.protocols import Tracker
from pipeline.system.errors import UsageError, unknown_name
from tests.benchmarks.options import benchmark_parser, run_benchmark
from tests.benchmarks.tracker_scores import REAL_LIMIT, SEEDS, Scores, mean_scores, score, score_scenes
from tests.benchmarks.tracker_sets import real_scenes
from tests.support.track_scenarios import SCENARIOS

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command."""
    parser = benchmark_parser("tests.benchmarks.trackers", __doc__)
    add = parser.add_argument
    add("--tracker", nargs="+", default=["centre"], metavar="NAME", help="names as in a configuration")
    add("--set", action="append", default=[], metavar="OPTION=VALUE", help="option of the trackers")
    add("--scenarios", nargs="*", metavar="NAME", help="default: all, or none with --real")
    add("--seeds", nargs="+", type=int, default=list(SEEDS))
    add("--real", nargs="+", default=[], metavar="SET=FILE", help="data sets and their detections")
    add("--data", type=Path, default=DATA, help="folder of the data sets")
    add("--coasting", action="store_true", help="count predicted rows, too")
    add("--no-hota", dest="hota", action="store_false", help="leave out HOTA, which takes longest")
    return parser


def measure(options: argparse.Namespace) -> str:
    """Returns the tables. Raises MoteError."""
    names = options.scenarios
    names = ([] if options.real else list(SCENARIOS)) if names is None else names or list(SCENARIOS)
    for name in names:
        if name not in SCENARIOS:
            raise unknown_name("scenario", name, SCENARIOS)
    settings = override({}, [parse_setting(text) for text in options.set])
    sets = {}
    for text in options.real:
        name, separator, file = text.partition("=")
        if not separator:
            raise UsageError(f"'{text}' is not of the form SET=FILE")
        sets[name] = real_scenes(options.data / name, Path(file))
    tables = []
    for tracker in options.tracker:
        build = _builder(tracker, settings)
        chosen = {"hota": options.hota, "coasting": options.coasting}
        rows = score(build, names, options.seeds, **chosen)
        title = " ".join([tracker, *options.set])
        if rows:
            tables.append(scores_table(f"{title}, seeds {options.seeds}", rows, mean=True))
        real = {
            name: score_scenes(build, scenes, limit=REAL_LIMIT, **chosen) for name, scenes in sets.items()
        }
        if real:
            tables.append(scores_table(f"{title}, real clips", real))
    return "\n\n".join(tables)


def _builder(name: str, settings: dict) -> Callable[[], Tracker]:
    return lambda: trackers.build(name, **settings)


def scores_table(title: str, scores: Mapping[str, Scores], *, mean: bool = False) -> str:
    """Returns a line for each name, and one of the means on request."""
    rows = [["", "IDF1", "HOTA", "MOTA", "switches", "coverage", "false/min", "missed", "first s"]]
    named = [*scores.items(), *([("mean, sum of counts", mean_scores(scores))] if mean else [])]
    for name, row in named:
        values = (row.idf1, row.hota, row.mota, row.switches, row.coverage)
        rate = format_number(row.false_per_minute, 2)
        missed = f"{row.missed}/{row.targets}"
        rows.append(
            [name, *map(format_number, values), rate, missed, format_number(row.first_confirmation, 2)]
        )
    return format_table(title, rows)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    return run_benchmark(parser(), measure, arguments)


if __name__ == "__main__":
    sys.exit(main())
