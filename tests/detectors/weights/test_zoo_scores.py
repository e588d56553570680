"""Supplied weights reach the scores of their model cards on a small part of the validation data."""

from __future__ import annotations

import re

import pytest

from datasets.layouts import registry
from datasets.sequences.clips import read_sequence
from detectors import SEGMENTERS
from detectors.evaluation.detection import score_dataset
from detectors.evaluation.segmentation import score_masks
from detectors.weights import restore, zoo

CHECK = re.compile(
    r"\*\*Check\.\*\* (AP50|IoU) (?P<value>[\d.]+) on .*?"
    r"--stride (?P<stride>\d+) --videos (?P<videos>[^`]+)`",
    re.DOTALL,
)
"""Pattern of commands and scores in a model card."""
HALF_A_POINT = 0.005


def check_of(name: str) -> re.Match:
    card = (zoo.ZOO / name).with_suffix(".md").read_text(encoding="utf-8")
    found = CHECK.search(card)
    assert found, f"the card of {name} has no check"
    return found


@pytest.mark.real_data
@pytest.mark.parametrize("name", [n for n, e in zoo.ZOO_TABLE.items() if e.detector not in SEGMENTERS])
def test_detectors_score_what_their_cards_say(name, drone_ir):
    check = check_of(name)
    entry = zoo.ZOO_TABLE[name]
    model, path, _ = restore.restore_network(entry.detector, name)
    dataset = registry.load_dataset("drone-ir", drone_ir, "val").subset(check["videos"].split())
    by_class = len(entry.classes) > 1
    evaluator, _ = score_dataset(
        model.eval(),
        dataset,
        stride=int(check["stride"]),
        enlarge=restore.trained_enlargement(path),
        by_class=by_class,
    )
    assert evaluator.scores().ap50 == pytest.approx(float(check["value"]), abs=HALF_A_POINT)


@pytest.mark.real_data
@pytest.mark.parametrize("name", [n for n, e in zoo.ZOO_TABLE.items() if e.detector in SEGMENTERS])
def test_segmenters_score_what_their_cards_say(name, shared_root):
    check = check_of(name)
    model, path, _ = restore.restore_network(zoo.ZOO_TABLE[name].detector, name)
    dataset = registry.load_dataset("nuaa-sirst", shared_root / "data" / "nuaa-sirst", "val")
    records = dataset.subset(check["videos"].split()).records
    scorer = score_masks(
        model.eval(),
        (read_sequence(record, dataset.root) for record in records),
        stride=int(check["stride"]),
        enlarge=restore.trained_enlargement(path),
    )
    assert scorer.scores()["default"].iou == pytest.approx(float(check["value"]), abs=HALF_A_POINT)
