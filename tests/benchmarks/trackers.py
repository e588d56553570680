"""Compares trackers on invented scenarios and on the detections of real clips.

    python -m tests.benchmarks.trackers                                     # the scenarios, seeds 3 to 5
    python -m tests.benchmarks.trackers --scenarios crossings blink --set acceleration=0.2
    python -m tests.benchmarks.trackers --tracker centre centre,high_score=0.3 byte --seeds 0 1 2
    python -m tests.benchmarks.trackers --real drone-ir=found.json --data DIR --motion motion/

The file of a real set holds COCO results on its split val; DIR is the folder of the data sets. With --motion,
trackers are given the camera's motion, which is measured at the first time and kept in that folder.

Trackers of other packages run in an environment of their own:

    python -m venv ENV
    ENV/bin/pip install trackers==2.6.1 boxmot==25.0.0
    ENV/bin/pip install --no-deps norfair==2.3.0 filterpy==1.4.5
    python -m tests.benchmarks.trackers --peers ENV --output trackers.json
    python -m tests.benchmarks.tracker_report trackers.json
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import trackers
from pipeline.config.parsing import override, parse_setting
from pipeline.evaluation.detection.tables import format_number, format_table
from pipeline.evaluation.tracking.track_rows import TrackRows
from pipeline.structures.protocols import Tracker
from pipeline.system import cli
from pipeline.system.errors import UsageError, unknown_name
from tests.benchmarks.options import benchmark_parser, run_benchmark
from tests.benchmarks.tracker_envs import peer_names, peer_tracks
from tests.benchmarks.tracker_scores import (
    REAL_LIMIT,
    SEEDS,
    SYNTHETIC_LIMIT,
    SceneScorer,
    Scores,
    mean_scores,
    tracked,
)
from tests.benchmarks.tracker_sets import real_scenes
from tests.support.track_scenarios import SCENARIOS, TrackScene, make_scene

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def parser() -> cli.Parser:
    """Returns the parser of the command."""
    parser = benchmark_parser("tests.benchmarks.trackers", __doc__)
    add = parser.add_argument
    add("--tracker", nargs="*", metavar="NAME[,OPTION=VALUE…]", help="default: centre, or none with --peers")
    add("--set", action="append", default=[], metavar="OPTION=VALUE", help="option of all own trackers")
    add("--scenarios", nargs="*", metavar="NAME", help="default: all, or none with --real")
    add("--seeds", nargs="+", type=int, default=list(SEEDS))
    add("--real", nargs="+", default=[], metavar="SET=FILE", help="data sets and their detections")
    add("--data", type=Path, default=DATA, help="folder of the data sets")
    add("--motion", type=Path, metavar="DIR", help="folder of the camera's motion in real clips")
    add("--coasting", action="store_true", help="count predicted rows of own trackers, too")
    add("--no-hota", dest="hota", action="store_false", help="leave out HOTA, which takes longest")
    add("--peers", type=Path, metavar="ENV", help="environment of other trackers")
    add("--peer", nargs="+", metavar="NAME", help="some of them (default: all)")
    add("--output", type=Path, metavar="JSON", help="add the numbers to this file")
    return parser


def measure(options: argparse.Namespace) -> str:
    """Returns the tables. Raises MoteError."""
    groups = dict.fromkeys(_scenario_names(options), SYNTHETIC_LIMIT)
    own, peers = _own_trackers(options), _peer_names(options)
    scenes = {name: [make_scene(name, seed) for seed in options.seeds] for name in groups}
    for text in options.real:
        name, separator, file = text.partition("=")
        if not separator:
            raise UsageError(f"'{text}' is not of the form SET=FILE")
        groups[name] = REAL_LIMIT
        scenes[name] = real_scenes(options.data / name, Path(file), motion=options.motion)
    tables, means = [], {}
    for tracker, tracks in _tracks(own, peers, options, [scene for name in groups for scene in scenes[name]]):
        scores = {}
        for name, limit in groups.items():
            scorer = SceneScorer(limit, hota=options.hota)
            for scene in scenes[name]:
                scorer.add(scene, next(tracks))
            scores[name] = scorer.scores()
        invented = {name: row for name, row in scores.items() if name in SCENARIOS}
        if invented:
            means[tracker] = mean_scores(invented)
        tables.append(scores_table(tracker, scores))
        _keep(options.output, tracker, options.seeds, scores)
    if means:
        tables.append(scores_table(f"mean of {len(groups)} scenarios, sum of counts", means))
    return "\n\n".join(tables)


def _scenario_names(options: argparse.Namespace) -> list[str]:
    chosen = options.scenarios
    names = ([] if options.real else list(SCENARIOS)) if chosen is None else chosen or list(SCENARIOS)
    for name in names:
        if name not in SCENARIOS:
            raise unknown_name("scenario", name, SCENARIOS)
    return names


def _own_trackers(options: argparse.Namespace) -> dict[str, Callable[[], Tracker]]:
    """Returns what builds each tracker of this project, by its name and options. Raises UsageError."""
    texts = ([] if options.peers else ["centre"]) if options.tracker is None else options.tracker
    names = [[*text.split(","), *options.set] for text in texts]
    return {", ".join(words): _builder(words[0], words[1:]) for words in names}


def _peer_names(options: argparse.Namespace) -> list[str]:
    """Returns the names of the peers to run. Raises UsageError."""
    if not options.peers:
        return []
    known = peer_names(options.peers / "bin" / "python")
    for name in options.peer or []:
        if name not in known:
            raise unknown_name("peer", name, known)
    return options.peer or known


def _tracks(
    own: Mapping[str, Callable[[], Tracker]],
    peers: Sequence[str],
    options: argparse.Namespace,
    scenes: Sequence[TrackScene],
) -> Iterator[tuple[str, Iterator[TrackRows]]]:
    """Yields the name of each tracker and its tracks of the scenes."""
    for title, build in own.items():
        yield title, (tracked(build(), scene, coasting=options.coasting) for scene in scenes)
    if peers:
        for name, rows in peer_tracks(options.peers / "bin" / "python", peers, scenes).items():
            yield name, iter(rows)


def _builder(name: str, settings: Sequence[str]) -> Callable[[], Tracker]:
    """Returns what builds the tracker; raises UsageError now if an option is wrong."""
    build = partial(trackers.build, name, **override({}, [parse_setting(text) for text in settings]))
    build()
    return build


def _keep(path: Path | None, tracker: str, seeds: Sequence[int], scores: Mapping[str, Scores]) -> None:
    """Adds the numbers of a tracker to a JSON file."""
    if path is None:
        return
    table: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    known = table.setdefault("scores", {}).setdefault(tracker, {})
    known |= {name: row._asdict() for name, row in scores.items()}
    cli.write_json(path, {**table, "seeds": list(seeds)})


def scores_table(title: str, scores: Mapping[str, Scores]) -> str:
    """Returns a line for each name."""
    rows = [["", "IDF1", "HOTA", "MOTA", "switches", "coverage", "false/min", "missed", "first s"]]
    for name, row in scores.items():
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
