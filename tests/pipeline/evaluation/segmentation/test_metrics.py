"""The default definition of the mask metrics, and the rules that definitions consist of."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.evaluation.segmentation.definitions import definition, definitions
from pipeline.evaluation.segmentation.roc import RocRule
from pipeline.evaluation.segmentation.sample import Sample
from pipeline.evaluation.segmentation.scorer import MaskScorer
from pipeline.evaluation.segmentation.target_metrics import TargetRule
from pipeline.imaging.connected_components import find_regions, first_come_pairs, nearest_pairs
from pipeline.system.errors import UsageError

HEIGHT, WIDTH = 40, 48


def spots(*places: tuple[int, int, int, int], value: float = 1.0) -> np.ndarray:
    """A map with rectangles (top, left, height, width) of a value on zeros."""
    image = np.zeros((HEIGHT, WIDTH), np.float32)
    for top, left, height, width in places:
        image[top : top + height, left : left + width] = value
    return image


def scored(found: np.ndarray, mask: np.ndarray, name: str = "default", threshold: float = 0.5):
    """The numbers of one image."""
    scorer = MaskScorer([definition(name, threshold)])
    scorer.add(found, mask > 0)
    return scorer.scores()[name]


TARGET = spots((10, 10, 3, 3))
NOTHING = spots()


# The default definition


def test_a_perfect_map_is_right_in_everything():
    scores = scored(TARGET, TARGET)
    assert (scores.iou, scores.niou, scores.f1, scores.pd, scores.fa) == (1, 1, 1, 1, 0)
    assert scores.auc == pytest.approx(1)
    assert scores.target_auc == pytest.approx(1)


@pytest.mark.parametrize("name", definitions())
def test_a_perfect_map_has_no_false_alarm_by_any_definition(name):
    scores = scored(TARGET, TARGET, name)
    assert scores.pd in (1, None)
    assert scores.fa in (0, None)
    assert scores.iou in (1, None)


def test_pixels_are_counted_over_all_images_and_the_mean_is_that_of_images():
    scorer = MaskScorer([definition("default")])
    scorer.add(spots((10, 10, 3, 6)), TARGET > 0)  # 9 of 18
    scorer.add(spots((0, 0, 1, 1)), spots((0, 0, 1, 1)) > 0)
    scores = scorer.scores()["default"]
    assert scores.iou == pytest.approx(10 / 19)
    assert scores.niou == pytest.approx((0.5 + 1) / 2)
    assert (scores.precision, scores.recall) == pytest.approx((10 / 19, 1))
    assert scores.f1 == pytest.approx(20 / 29)


def test_an_image_with_nothing_in_it_is_right_when_nothing_is_found():
    scores = scored(NOTHING, NOTHING)
    assert (scores.iou, scores.niou, scores.f1, scores.fa) == (1, 1, 1, 0)
    assert (scores.pd, scores.precision, scores.recall, scores.auc) == (None, None, None, None)


def test_published_definitions_count_an_image_with_nothing_in_it_as_wrong():
    assert scored(NOTHING, NOTHING, "abc").niou == 0


def test_a_false_alarm_in_an_image_without_targets_counts():
    scores = scored(spots((5, 5, 2, 2)), NOTHING)
    assert (scores.iou, scores.niou) == (0, 0)
    assert scores.fa == pytest.approx(4 / (HEIGHT * WIDTH))
    assert scores.false_alarms_per_image == 1


def test_a_map_of_zeros_misses_the_target():
    scores = scored(NOTHING, TARGET)
    assert (scores.iou, scores.f1, scores.pd, scores.fa) == (0, 0, 0, 0)


@pytest.mark.parametrize(("shift", "hits"), [(2, 1), (3, 0)], ids=["closer than 3 px", "exactly 3 px"])
def test_a_target_is_hit_when_centroids_are_closer_than_three_pixels(shift, hits):
    scores = scored(spots((10, 10 + shift, 3, 3)), TARGET)
    assert scores.hits == hits
    assert scores.false_pixels == (0 if hits else 9)


def test_one_group_hits_one_target():
    scores = scored(spots((10, 10, 2, 7)), spots((10, 10, 2, 2), (10, 15, 2, 2)))
    assert (scores.hits, scores.targets, scores.pd) == (1, 2, 0.5)


def test_a_second_group_on_a_target_is_a_false_alarm():
    scores = scored(spots((10, 10, 3, 1), (10, 12, 3, 1)), TARGET)
    assert (scores.hits, scores.false_pixels) == (1, 3)


def test_a_false_alarm_as_large_as_a_hit_target_counts_unlike_in_published_definitions():
    found = spots((10, 10, 3, 3), (30, 30, 3, 3))
    assert scored(found, TARGET).false_pixels == 9
    assert scored(found, TARGET, "abc").false_pixels == 0


def test_a_false_alarm_beside_a_hit_target_counts_unlike_in_a_published_definition():
    found = spots((10, 10, 3, 3), (11, 30, 1, 2))
    assert scored(found, TARGET).false_pixels == 2
    assert scored(found, TARGET, "dstransnet-b").false_pixels == 0


def test_pixels_that_touch_at_a_corner_are_one_target_or_by_choice_two():
    diagonal = spots((5, 5, 1, 1), (6, 6, 1, 1))
    assert scored(diagonal, diagonal).targets == 1
    assert scored(diagonal, diagonal, "default-4").targets == 2


@pytest.mark.parametrize(("away", "hits", "false"), [(1, 1, 0), (2, 0, 0), (4, 0, 0), (5, 0, 1)])
def test_the_guard_definition_hits_within_one_pixel_and_forgives_four(away, hits, false):
    scores = scored(spots((10, 12 + away, 1, 1)), TARGET, "dtum")
    assert (scores.hits, scores.false_pixels) == (hits, false)


# Assignment


def test_pairs_are_as_many_as_can_be_where_first_come_takes_the_wrong_one():
    apart = np.array([[2.0, 1.0], [2.5, 9.0]])  # target 0 could take either, target 1 the first alone
    assert nearest_pairs(apart, 3).tolist() == [[0, 1], [1, 0]]
    assert first_come_pairs(apart, 3).tolist() == [[0, 0]]


def test_pairs_do_not_depend_on_the_order_of_groups():
    apart = np.random.default_rng(0).uniform(0, 5, (4, 6))
    order = np.random.default_rng(1).permutation(6)
    total = apart[tuple(nearest_pairs(apart, 3).T)].sum()
    shuffled = apart[:, order]
    assert shuffled[tuple(nearest_pairs(shuffled, 3).T)].sum() == pytest.approx(total)


@pytest.mark.parametrize("assign", [nearest_pairs, first_come_pairs])
@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (2, 0)])
def test_nothing_pairs_with_nothing(assign, shape):
    assert assign(np.zeros(shape), 3).shape == (0, 2)


def test_groups_come_in_raster_order_of_their_first_pixels():
    groups = find_regions(spots((2, 30, 4, 1), (3, 1, 1, 2)) > 0)  # two blocks of 2x2 would turn them round
    assert groups.centroids.tolist() == [[3.5, 30], [3, 1.5]]
    assert groups.areas.tolist() == [4, 2]


# Thresholds


def test_a_pixel_at_the_threshold_is_not_found():
    assert scored(TARGET * 0.5, TARGET).hits == 0
    assert scored(TARGET * 0.5, TARGET, threshold=0.4).hits == 1


def test_the_threshold_of_published_definitions_is_fixed():
    assert scored(TARGET * 0.45, TARGET, "basicirstd", threshold=0.4).hits == 0


def test_a_relative_threshold_finds_what_the_default_does_not():
    assert scored(TARGET * 0.3, TARGET).hits == 0
    assert scored(TARGET * 0.3, TARGET, "datransnet").hits == 1
    assert scored(NOTHING, TARGET, "datransnet").hits == 0


@pytest.mark.parametrize(
    ("grey", "expected"), [("half", (1, 2, 1)), ("background", (1, 2, 1)), ("wrong", (1, 2, 2))]
)
def test_grey_mask_pixels_are_what_the_rule_says(grey, expected):
    mask = np.array([[1.0, 0.4, 0.4, 1.0]], np.float32)
    found = np.array([[1.0, 1.0, 0.0, 0.0]], np.float32)
    sample = Sample(found, mask)
    hit, wanted = sample.targets(grey), sample.required(grey)
    counts = (found > 0) & hit, hit, wanted & (found == 0)
    assert tuple(int(count.sum()) for count in counts) == expected


# Curves


def test_the_area_is_the_chance_that_a_target_pixel_is_above_another():
    rng = np.random.default_rng(0)
    scores, mask = rng.integers(0, 256, (HEIGHT, WIDTH)) / 255, rng.random((HEIGHT, WIDTH)) < 0.1
    positive, negative = scores[mask][:, None], scores[~mask][None]
    chance = ((positive > negative) + 0.5 * (positive == negative)).mean()
    tally = RocRule().tally()
    tally.add(Sample(scores, mask))
    assert tally.curve().area() == pytest.approx(chance, rel=1e-12)


def test_the_curve_of_targets_takes_the_best_pixel_of_each():
    mask = spots((5, 5, 2, 2), (20, 20, 2, 2)) > 0
    found = spots((5, 5, 1, 1), value=0.8) + spots((21, 21, 1, 1), value=0.4)
    tally = RocRule(steps=10, hit="touched").tally()
    tally.add(Sample(found, mask))
    assert tally.curve().hit_rates.tolist() == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0, 0, 0]


# The accumulator


def test_images_give_the_same_together_and_one_by_one():
    rng = np.random.default_rng(0)
    images = [(rng.random((20, 24), dtype=np.float32), rng.random((20, 24)) < 0.05) for _ in range(3)]
    whole = MaskScorer()
    verdicts = [whole.add(*image) for image in images]
    scores = whole.scores()["default"]
    assert scores.hits == sum(verdict.hits for verdict in verdicts)
    assert scores.false_pixels == sum(verdict.false_pixels for verdict in verdicts)
    assert scores.niou == pytest.approx(np.mean([verdict.iou for verdict in verdicts]))
    assert whole.images == 3


def test_without_images_nothing_fails():
    scores = MaskScorer().scores()["default"]
    assert (scores.niou, scores.pd, scores.fa, scores.auc) == (None, None, None, None)


@pytest.mark.parametrize(
    ("found", "mask", "message"),
    [
        (TARGET[None], TARGET, r"shape \(1, 40, 48\), expected floating \(H, W\)"),
        (TARGET, TARGET[:, 1:], r"shape \(40, 48\), mask of \(40, 47\)"),
        (TARGET * 2, TARGET, "values from 0 to 2"),
        (TARGET * np.nan, TARGET, "values from nan"),
        (TARGET.astype(np.uint8), TARGET, "probability is uint8"),
    ],
    ids=["batched", "other size", "no probability", "not a number", "whole numbers"],
)
def test_invalid_maps_are_refused_and_not_counted(found, mask, message):
    scorer = MaskScorer()
    with pytest.raises(ValueError, match=message):
        scorer.add(found, mask)
    assert scorer.images == 0


def test_an_unknown_definition_is_refused_with_the_closest_name():
    with pytest.raises(UsageError, match="did you mean 'basicirstd'"):
        definition("basicirst")


# Rules


def test_rules_that_definitions_share_are_counted_once():
    scorer = MaskScorer()
    shared = [row.targets for row in definitions().values() if row.targets]
    assert len(set(shared)) < len(shared)
    scorer.add(TARGET, TARGET > 0)
    assert scorer.scores()["abc"].hits == scorer.scores()["dstransnet-a"].hits == 1


def test_fa_of_a_fixed_frame_does_not_know_the_size():
    tally = TargetRule(frame=100).tally()
    tally.add(Sample(TARGET, NOTHING > 0))
    assert tally.fa == pytest.approx(9 / 100)
