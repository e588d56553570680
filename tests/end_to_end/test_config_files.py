"""The configuration files of the project agree with the code."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from detectors.training.recipe import Recipe
from pipeline.config.parsing import build, load_toml
from pipeline.config.schema import RunConfig
from pipeline.drawing.annotator import AnnotatorOptions
from tests.conftest import PROJECT_ROOT
from trackers.centre_options import CentreOptions

CONFIGS = PROJECT_ROOT / "configs"


def as_toml(values) -> dict:
    """Returns the fields of a dataclass as TOML would hold them: lists instead of tuples."""
    return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(values).items()}


@pytest.fixture
def table():
    return load_toml(CONFIGS / "default.toml")


def test_the_default_file_holds_every_key_with_its_default(table):
    expected = {section: dict(values) for section, values in asdict(RunConfig()).items()}
    expected["segmentation"] = as_toml(RunConfig().segmentation)
    expected["output"] = as_toml(RunConfig().output)
    expected["events"] = as_toml(RunConfig().events)
    expected["detector"] = as_toml(RunConfig().detector)
    expected["tracker"]["options"] = as_toml(CentreOptions())
    expected["annotate"] = as_toml(AnnotatorOptions())
    expected["alarms"] = json.loads(json.dumps(asdict(RunConfig().alarms)))
    assert table == expected


def test_the_default_file_is_a_configuration(table):
    config = build(RunConfig, table)
    assert build(CentreOptions, config.tracker.options) == CentreOptions()
    assert build(AnnotatorOptions, config.annotate) == AnnotatorOptions()


def test_the_training_configuration_is_a_recipe():
    recipe = build(Recipe, load_toml(CONFIGS / "tridos_nano_drone_ir.toml"))
    assert recipe.schedule.steps == 4200
