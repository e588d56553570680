"""Ablations of tridos-nano: trains and evaluates variants on the same small budget.

    python -m tests.benchmarks.ablations [--only full no-swin …] [--steps N] [--seeds N] [--output DIR]

The budget is configs/tridos_nano_ablation.toml. Finished variants are not repeated, interrupted ones are
resumed; then a Markdown table of all finished variants is printed. `--show` only prints the table.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

import detectors
from detectors.backends.devices import pick_device
from detectors.evaluation.detection import fill_evaluator
from detectors.networks.plain import PlainNetwork
from detectors.networks.registry import NetworkEntry
from detectors.training.checkpoint import first_difference, with_defaults
from detectors.training.recipe import Recipe
from detectors.training.trainer import Trainer
from detectors.weights import state_dict
from pipeline.config.parsing import build, full_setting, load_toml, override, parse_setting
from pipeline.config.schema import DetectorConfig
from pipeline.evaluation.detection.matching import CENTRE_5
from pipeline.system import cli
from pipeline.system.errors import UsageError, WeightsError, unknown_name
from pipeline.system.signals import StopRequest, stop_on_signals
from tests.benchmarks import ablated, plain_network

CONFIG = Path(__file__).parents[2] / "configs" / "tridos_nano_ablation.toml"
NUMBERS = ("ap50", "best_f1", "centre_ap", "parameters", "seconds")
"""Numbers that are stored for each run."""
SELDOM = 1_000_000
"""Stride of the trainer's own evaluation: one frame per sequence, since `trained` evaluates afterwards."""


@dataclass(frozen=True)
class Variant:
    """One row of the table."""

    title: str
    change: Callable[[nn.Module], nn.Module] = lambda network: network
    """Changes the network before training."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Overrides of the recipe by dotted key."""


VARIANTS: dict[str, Variant] = {
    "full": Variant("all of it"),
    "one-frame": Variant("the key frame five times", ablated.of_frames(0, 0, 0, 0, 0)),
    "no-frequency": Variant("without frequency block", ablated.without("agpf", nn.Identity)),
    "no-memory": Variant("without memory", ablated.without("memory", ablated.WithoutMemory)),
    "no-difference": Variant(
        "without temporal difference", ablated.without("tdms", ablated.WithoutDifference)
    ),
    "no-swin": Variant("without Swin", ablated.without("swin", ablated.WithoutSwin)),
    "no-synthetic": Variant("without synthetic clips", settings={"data.synthetic_share": 0.0}),
    "stride-2": Variant("every second frame, 8 back", ablated.of_frames(8, 6, 4, 2, 0)),
    "percentiles": Variant(
        "grey levels by percentiles of the window", ablated.scaled(ablated.by_percentiles)
    ),
    "moments": Variant("grey levels by mean and deviation of the window", ablated.scaled(ablated.by_moments)),
    "wasserstein": Variant(
        "class scores trained on the Wasserstein similarity", settings={"objective.quality": "wasserstein"}
    ),
    "peaks": Variant("trained on a peak at each centre, as the plain network", plain_network.WithPeaks),
    "plain": Variant("the plain network instead", lambda _: PlainNetwork()),
}
"""Variants by name, in the order of training and of the table."""


def recipe_of(variant: Variant, name: str, seed: int, options: argparse.Namespace) -> Recipe:
    """Returns the recipe of one run. Raises UsageError for an invalid configuration."""
    given = [full_setting(Recipe, parse_setting(text)) for text in options.set]
    own = [(key.split("."), value) for key, value in variant.settings.items()]
    recipe = build(Recipe, override(load_toml(options.config), [*given, *own]))
    schedule = replace(recipe.schedule, seed=seed, steps=options.steps or recipe.schedule.steps)
    record = replace(
        recipe.record,
        output=str(options.output / f"{name}-{seed}"),
        measure_every=schedule.steps,
        measure_stride=SELDOM,
    )
    return replace(
        recipe, model=replace(recipe.model, name=f"ablation-{name}"), schedule=schedule, record=record
    )


@contextmanager
def known(recipe: Recipe, base: str, variant: Variant) -> Iterator[None]:
    """Registers the variant of network `base` under the recipe's name for the duration of the block."""

    def changed(**given) -> nn.Module:
        return variant.change(detectors.build(base, **given))

    detectors.DETECTORS[recipe.model.name] = NetworkEntry("detector", changed)
    try:
        yield
    finally:
        del detectors.DETECTORS[recipe.model.name]


def finished(recipe: Recipe, stride: int) -> dict[str, float] | None:
    """Returns the numbers of a finished run; None if it is not finished.

    Raises UsageError for a result of another budget, WeightsError for a file of another kind.
    """
    path = Path(recipe.record.output) / "result.json"
    if not path.exists():
        return None
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        numbers = {key: float(result["numbers"][key]) for key in NUMBERS}
        theirs = result["budget"]
        theirs = {**_plain(with_defaults(theirs)), "stride": theirs["stride"]}
        difference = first_difference({**_plain(asdict(recipe)), "stride": stride}, theirs)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{path} is no result of this command; delete it") from error
    if difference:
        key, mine, other = difference
        raise UsageError(f"{path} is of {key} = {other!r}, not {mine!r}; choose another --output")
    return numbers


def _plain(recipe: dict[str, Any]) -> dict[str, Any]:
    """Returns the sections of a recipe in JSON types, without keys that do not affect the numbers."""
    sections = json.loads(json.dumps(recipe))
    del sections["record"]
    for place in ("root", "store"):
        del sections["data"][place]
    return sections


def trained(
    recipe: Recipe, variant: Variant, *, base: str, stride: int, stop: StopRequest
) -> dict[str, float]:
    """Trains and evaluates one run and stores its numbers. Raises Interrupted after a signal.

    `seconds` is the CPU time of a training step on all cores, including its clips; 0 if no step was left.
    """
    folder, device = Path(recipe.record.output), pick_device("auto")
    with known(recipe, base, variant):
        trainer = Trainer(recipe, device, stop=stop)
        before, started = trainer.steps_done, time.process_time()
        trainer.run()
        count = trainer.steps_done - before
        seconds = (time.process_time() - started) / count if count else 0.0
        model = detectors.build(recipe.model.name, **recipe.model.options)
    parameters = ablated.learned_parameters(model)
    state_dict.load_weights(model.to(device), folder / "best.safetensors")
    val = trainer.validation
    found = fill_evaluator(model, val.records, val.iterate(), val.truth, stride=stride, classes=False)
    report = found.report(DetectorConfig.conf)
    numbers = {
        "ap50": report.scores.ap50,
        "best_f1": report.scores.best_f1,
        "centre_ap": report.criteria[CENTRE_5.name].ap or 0.0,
        "parameters": parameters,
        "seconds": round(seconds, 3),
    }
    result = {"budget": {**_plain(asdict(recipe)), "stride": stride}, "numbers": numbers}
    cli.write_json(folder / "result.json", result)
    return numbers


def table(rows: dict[str, list[dict[str, float]]]) -> str:
    """Formats the numbers of the variants as Markdown: the mean and, for several runs, the range."""
    lines = [
        "| variant | AP50 | best F1 | AP, centres within 5 px | parameters | CPU s a step | runs |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, runs in rows.items():
        scores = (_mean_and_range([run[key] for run in runs]) for key in ("ap50", "best_f1", "centre_ap"))
        timed = [run["seconds"] for run in runs if run["seconds"]]
        seconds = f"{sum(timed) / len(timed):.2f}" if timed else "not known"
        cells = [f"`{name}`: {VARIANTS[name].title}", *scores]
        count = f"{int(runs[0]['parameters']):,}".replace(",", " ")
        cells += [count, seconds, str(len(runs))]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _mean_and_range(values: Sequence[float]) -> str:
    mean = f"{sum(values) / len(values):.3f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.3f} to {max(values):.3f})"


def parser() -> cli.Parser:
    """Returns the parser of the command."""
    parser = cli.Parser(prog="python -m tests.benchmarks.ablations", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="NAME",
        help=f"variants (default: all): {', '.join(VARIANTS)}",
    )
    parser.add_argument("--config", type=Path, default=CONFIG, help="recipe of the budget (TOML)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override one key")
    parser.add_argument(
        "--steps", type=cli.int_at_least(1), help="training steps (default: those of --config)"
    )
    parser.add_argument(
        "--seeds", type=cli.int_at_least(1), default=1, help="runs of each variant (default: 1)"
    )
    parser.add_argument(
        "--stride", type=cli.int_at_least(1), default=50, help="evaluate every n-th frame (default: 50)"
    )
    parser.add_argument("--output", type=Path, default=Path("runs/ablations"), help="folder of all runs")
    parser.add_argument("--show", action="store_true", help="only print the table of finished variants")
    return parser


def work(options: argparse.Namespace) -> None:
    """Trains unfinished runs, seed by seed, and prints the table. Raises MoteError."""
    for name in options.only:
        if name not in VARIANTS:
            raise unknown_name("variant", name, VARIANTS)
    base = build(Recipe, load_toml(options.config)).model.name
    recipe = partial(recipe_of, options=options)
    chosen = [] if options.show else options.only or list(VARIANTS)
    with stop_on_signals() as stop:
        for seed in range(options.seeds):
            for name in chosen:
                run = recipe(VARIANTS[name], name, seed)
                if finished(run, options.stride) is None:
                    print(f"{name}, seed {seed}", flush=True)
                    trained(run, VARIANTS[name], base=base, stride=options.stride, stop=stop)
    print(table(_done(recipe, options)))


def _done(recipe: Callable[..., Recipe], options: argparse.Namespace) -> dict[str, list[dict[str, float]]]:
    """Returns the numbers of all finished runs, including variants that are not in `--only`."""
    rows = {}
    for name, variant in VARIANTS.items():
        seeds = sorted(int(path.name.rpartition("-")[2]) for path in options.output.glob(f"{name}-[0-9]*"))
        found = [finished(recipe(variant, name, seed), options.stride) for seed in seeds]
        if any(found):
            rows[name] = [numbers for numbers in found if numbers]
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    return cli.run(parser(), work, arguments)


if __name__ == "__main__":
    sys.exit(main())
