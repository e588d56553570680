"""Frames are enlarged alike in training, measuring and live use, and boxes come out in source pixels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from datasets.layouts import registry
from datasets.sequences.clips import read_sequence
from datasets.sequences.views import resize_record, resize_sequence
from detectors.evaluation import detection
from detectors.training.data import read_split, training_clips
from detectors.training.recipe import DataRecipe, Recipe
from detectors.weights import restore
from pipeline.imaging.geometry import Geometry
from pipeline.system.signals import StopRequest
from tests.support.training_runs import write_clip


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("data"))


def data(root, **settings) -> DataRecipe:
    place = {"layout": "coco-video", "root": str(root), "train": "clip.json", "val": "clip.json"}
    return DataRecipe(**place, store="", synthetic_videos=2, synthetic_frames=6, **settings)


def test_training_sees_enlarged_frames_with_their_boxes(root):
    plain, large = (
        read_split(Recipe(data=data(root, enlarge=factor)), "clip.json", StopRequest())
        for factor in (1.0, 1.5)
    )
    (dataset, (sequence,)), (large_dataset, (large_sequence,)) = plain, large
    height, width = sequence.frames.shape[1:]
    assert large_sequence.frames.shape[1:] == (1.5 * height, 1.5 * width)
    for boxes, large_boxes in zip(sequence.boxes, large_sequence.boxes, strict=True):
        assert large_boxes == pytest.approx(1.5 * boxes)
    for record, large_record in zip(dataset.records, large_dataset.records, strict=True):
        assert (large_record.width, large_record.height) == (1.5 * record.width, 1.5 * record.height)
    areas = [
        sum(row["bbox"][2] * row["bbox"][3] for row in d.to_coco()["annotations"])
        for d in (dataset, large_dataset)
    ]
    assert areas[1] == pytest.approx(2.25 * areas[0])


def test_synthetic_targets_are_rendered_in_source_pixels_and_enlarged_with_their_noise(root):
    clips = [
        training_clips(
            Recipe(data=data(root, enlarge=factor, synthetic_share=1.0)),
            StopRequest(),
            frames=5,
            num_classes=1,
        )
        for factor in (1.0, 2.0)
    ]
    (plain, *_), (large, *_) = (sampler._pools[1] for sampler in clips)
    geometry = Geometry.native(plain.frames.shape[:0:-1], scale=2, multiple=1)
    np.testing.assert_array_equal(large.frames[0], geometry.apply(plain.frames[0]))
    assert large.boxes[0] == pytest.approx(2 * plain.boxes[0])


@pytest.mark.slow
def test_a_measurement_enlarges_and_gives_boxes_in_source_pixels(root, nano_weights):
    model = restore.restore_network("tridos-nano", nano_weights)[0].eval()
    dataset = registry.load_dataset("coco-video", root, "clip.json")
    sequence = read_sequence(dataset.records[0], root)
    size = sequence.frames.shape[:0:-1]
    larger = resize_sequence(sequence, Geometry.native(size, scale=1.5, multiple=1))
    positions = [0, 3, 7]
    found = list(detection.detect_frames(model, sequence, positions, enlarge=1.5))
    expected = list(detection.detect_frames(model, larger, positions))
    assert [position for position, _ in found] == positions
    for (_, ours), (_, theirs) in zip(found, expected, strict=True):
        assert len(ours) > 0
        assert ours.boxes == pytest.approx(theirs.boxes / 1.5, abs=1e-3)
        assert ours.scores == pytest.approx(theirs.scores, abs=1e-5)


def test_an_enlarged_record_overlaps_as_before(root):
    record = registry.load_dataset("coco-video", root, "clip.json").records[0]
    geometry = Geometry.native((record.width, record.height), scale=3, multiple=1)
    boxes = np.concatenate(resize_record(record, geometry).boxes)
    assert boxes == pytest.approx(3 * np.concatenate(record.boxes))


@pytest.mark.parametrize(
    "wrong", [{"enlarge": 0.1}, {"enlarge": 20.0}, {"enlarge": 2.0, "letterbox": (64, 64)}]
)
def test_an_enlargement_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match="enlarge"):
        replace(DataRecipe(), **wrong)
