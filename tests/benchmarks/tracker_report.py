"""Tables in Markdown and a plot of what `tests.benchmarks.trackers --output` measured.

    python -m tests.benchmarks.tracker_report trackers.json --plot docs/plots/trackers.png

The first table has means over the scenarios; the second IDF1 and false tracks a minute of each scenario; then
one for each real set. Trackers are those of the file in its order, or those of --columns.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.benchmarks.options import benchmark_parser, run_benchmark
from tests.benchmarks.tracker_scores import Scores, mean_scores
from tests.support.track_scenarios import SCENARIOS

Table = Mapping[str, Mapping[str, Scores]]
"""Tracker → scenario or set → scores."""


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command."""
    parser = benchmark_parser("tests.benchmarks.tracker_report", __doc__)
    parser.add_argument("scores", nargs="+", type=Path, help="files of --output")
    parser.add_argument("--columns", nargs="+", metavar="TRACKER", help="trackers of the second table")
    parser.add_argument("--plot", type=Path, help="picture to write")
    return parser


def read_scores(paths: Sequence[Path]) -> dict[str, dict[str, Scores]]:
    """Returns the scores of all files together."""
    found: dict[str, dict[str, Scores]] = {}
    for path in paths:
        for tracker, rows in json.loads(path.read_text(encoding="utf-8"))["scores"].items():
            found.setdefault(tracker, {}).update({name: Scores(**row) for name, row in rows.items()})
    return found


def report(*paths: Path, columns: Sequence[str] | None = None, plot: Path | None = None) -> str:
    """Returns the tables, and draws the means to `plot`."""
    scores = read_scores(paths)
    invented = {
        tracker: {name: row for name, row in rows.items() if name in SCENARIOS}
        for tracker, rows in scores.items()
    }
    invented = {tracker: rows for tracker, rows in invented.items() if rows}
    means = {tracker: mean_scores(rows) for tracker, rows in invented.items()}
    parts = []
    if means:
        parts += [_table("tracker", means), _scenario_table(invented, columns or list(invented))]
    sets = dict.fromkeys(name for rows in scores.values() for name in rows if name not in SCENARIOS)
    for name in sets:
        parts.append(_table(name, {tracker: rows[name] for tracker, rows in scores.items() if name in rows}))
    if plot:
        draw(means, plot)
    return "\n\n".join(parts)


def _table(title: str, rows: Mapping[str, Scores]) -> str:
    """Returns one line for each name."""
    heads = ("IDF1", "HOTA", "MOTA", "switches", "coverage", "false tracks / min", "missed", "first, s")
    lines = [[title, *heads]]
    for name, row in rows.items():
        ratios = [_number(value, 3) for value in (row.idf1, row.hota, row.mota)]
        rest = [_number(row.coverage, 3), _number(row.false_per_minute, 2), f"{row.missed} / {row.targets}"]
        lines.append([name, *ratios, str(row.switches), *rest, _number(row.first_confirmation, 2)])
    return _markdown(lines)


def _scenario_table(scores: Table, columns: Sequence[str]) -> str:
    """Returns IDF1 / false tracks a minute, one line for each scenario; the best IDF1 is bold."""
    lines = [["scenario", *columns]]
    names = [name for name in SCENARIOS if all(name in scores[column] for column in columns)]
    for name in names:
        rows = [scores[column][name] for column in columns]
        best = max(round(row.idf1, 2) for row in rows)
        cells = []
        for row in rows:
            value = f"**{row.idf1:.2f}**" if round(row.idf1, 2) == best else f"{row.idf1:.2f}"
            cells.append(f"{value} / {_number(row.false_per_minute, 0)}")
        lines.append([name, *cells])
    return _markdown(lines)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    rule = ["---"] * len(lines[0])
    return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], rule, *lines[1:]))


def draw(means: Mapping[str, Scores], path: Path) -> None:
    """Draws mean IDF1 over false tracks a minute, a point for each tracker."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    grey = "#808080"  # legible on white and on black
    figure, axes = pyplot.subplots(figsize=(8, 5), dpi=120)
    for name, row in means.items():
        own = not name.startswith(("roboflow", "boxmot", "norfair"))
        x, colour = max(row.false_per_minute or 0.0, 0.1), "#e0702a" if own else "#4f8fc4"
        axes.scatter(x, row.idf1, color=colour, s=40 if own else 22, zorder=3)
        axes.annotate(
            name, (x, row.idf1), xytext=(5, 3), textcoords="offset points", color=colour, fontsize=8
        )
    axes.set_xscale("log")
    axes.set_xlabel("false tracks a minute, mean of the scenarios (0.1: 0.1 or fewer)", color=grey)
    axes.set_ylabel("IDF1, mean of the scenarios", color=grey)
    axes.tick_params(colors=grey, which="both")
    axes.grid(True, color=grey, alpha=0.3)
    for side in axes.spines.values():
        side.set_color(grey)
    axes.margins(x=0.25, y=0.08)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, transparent=True)
    pyplot.close(figure)


def measure(options: argparse.Namespace) -> str:
    """Returns the tables."""
    return report(*options.scores, columns=options.columns, plot=options.plot)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    return run_benchmark(parser(), measure, arguments)


if __name__ == "__main__":
    sys.exit(main())
