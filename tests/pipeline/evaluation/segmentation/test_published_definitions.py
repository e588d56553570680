"""Every published definition reproduces the numbers of the evaluation that it is named after."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.evaluation.segmentation.definitions import definition
from pipeline.evaluation.segmentation.sample import Sample, ThresholdRule
from pipeline.evaluation.segmentation.scorer import MaskScorer

pytestmark = pytest.mark.real_data


@pytest.fixture(scope="module")
def fixture(shared_root):
    """Name → the arrays of its reference file."""
    return lambda name: np.load(shared_root / "parity" / f"metrics_{name}.npz")


def images_of(arrays) -> list[tuple[np.ndarray, np.ndarray]]:
    """Probability and mask of each image; masks as they were saved, grey in places."""
    if "logits" in arrays:
        probabilities = (1 / (1 + np.exp(-arrays["logits"].astype(np.float64)))).astype(np.float32)
        return list(zip(probabilities, arrays["masks"], strict=True))
    return list(zip(arrays["pred"][:, 0], arrays["mask"][:, 0].astype(bool), strict=True))


def scored(name: str, images) -> MaskScorer:
    scorer = MaskScorer([definition(name)])
    for probability, mask in images:
        scorer.add(probability, mask)
    return scorer


NUMBERS = {
    "abc": ("madnet", {"iou": "iou", "niou": "niou", "f1": "f1", "pixel_accuracy": "pixacc"}),
    "basicirstd": (
        "rdian",
        {"iou": "basic_mIoU", "pixel_accuracy": "basic_pixAcc", "pd": "basic_Pd", "fa": "basic_Fa"},
    ),
    "rdian": ("rdian", {"iou": "IoU", "niou": "nIoU", "pixel_accuracy": "pixAcc", "detection_rate": "DR"}),
    "dstransnet-a": (
        "dstransnet",
        {
            "iou": "mIoU",
            "niou": "nIoU",
            "f1": "f1",
            "pixel_accuracy": "pixAcc",
            "pd": "serank_Pd",
            "fa": "serank_Fa",
            "auc": "auc",
        },
    ),
    "dstransnet-b": ("dstransnet", {"pd": "pdfa_Pd", "fa": "pdfa_Fa"}),
    "datransnet": (
        "datransnet",
        {
            "iou": "mIoU",
            "f1": "F1",
            "precision": "rel_precision",
            "recall": "rel_recall",
            "pixel_accuracy": "pixAcc",
            "pd": "Pd",
            "fa": "Fa",
            "auc": "auc",
        },
    ),
    "dconet": (
        "dconet",
        {
            "iou": "iou",
            "niou": "niou",
            "f1": "f1",
            "precision": "prec",
            "recall": "recall",
            "target_auc": "auc",
        },
    ),
    "dconet-training": (
        "dconet",
        {"iou": "train_iou", "f1": "train_f1", "precision": "train_prec", "recall": "train_recall"},
    ),
}


ALONE = {
    "basicirstd": ("rdian", {"iou": "each_basic_mIoU", "pd": "each_basic_Pd", "fa": "each_basic_Fa"}),
    "rdian": ("rdian", {"iou": "each_IoU", "niou": "each_nIoU", "detection_rate": "each_DR"}),
    "abc": ("madnet", {"iou": "single_iou", "niou": "single_niou", "f1": "single_f1"}),
    "dstransnet-a": (
        "dstransnet",
        {
            "iou": "each_mIoU",
            "f1": "each_f1",
            "pd": "each_serank_Pd",
            "fa": "each_serank_Fa",
            "auc": "each_auc",
        },
    ),
    "dstransnet-b": ("dstransnet", {"pd": "each_pdfa_Pd", "fa": "each_pdfa_Fa"}),
    "datransnet": ("datransnet", {"pd": "each_Pd", "fa": "each_Fa", "f1": "each_F1", "auc": "each_auc"}),
    "dconet": ("dconet", {"iou": "single_iou", "niou": "single_niou", "f1": "single_f1"}),
    "dconet-training": ("dconet", {"iou": "single_train_iou", "f1": "single_train_f1"}),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_the_numbers_of_all_images_together_are_those_published(fixture, name):
    file, keys = NUMBERS[name]
    arrays = fixture(file)
    scores = scored(name, images_of(arrays)).scores()[name]
    for number, key in keys.items():
        assert getattr(scores, number) == pytest.approx(float(arrays[f"all_{key}"]), rel=1e-6), number


@pytest.mark.parametrize("name", ALONE)
def test_the_numbers_of_each_image_alone_are_those_published(fixture, name):
    file, keys = ALONE[name]
    arrays = fixture(file)
    for place, image in enumerate(images_of(arrays)):
        scores = scored(name, [image]).scores()[name]
        for number, key in keys.items():
            value, expected = getattr(scores, number), float(arrays[key][place])
            if value is None:
                assert np.isnan(expected) or not image[1].any(), (number, place)
            else:
                assert value == pytest.approx(expected, rel=1e-6, abs=1e-12), (number, place)


def test_images_without_targets_lower_the_mean_iou_of_abc(fixture):
    arrays = fixture("drtenet")
    for name, images in {"all": images_of(arrays), "nonempty": images_of(arrays)[:10]}.items():
        scores = scored("abc", images).scores()["abc"]
        assert scores.iou == pytest.approx(float(arrays[f"{name}_iou"]), rel=1e-9)
        assert scores.niou == pytest.approx(float(arrays[f"{name}_niou"]), rel=1e-9)
        assert (scores.fa, scores.pd) == pytest.approx((arrays[f"{name}_fa"][0], arrays[f"{name}_pd"][0]))


@pytest.mark.parametrize(("name", "file"), [("abc", "madnet"), ("dconet", "dconet")])
def test_hits_and_false_pixels_of_logits_at_all_eleven_thresholds(fixture, name, file):
    arrays = fixture(file)
    rule = definition(name).targets
    for step in range(11):
        tally = rule.tally()
        for logits, mask in zip(arrays["logits"], arrays["masks"], strict=True):
            tally.add(Sample((logits > 25.5 * step).astype(np.float32), mask))
        assert tally.hits == arrays["all_pd_hits"][step]
        assert tally.targets == arrays["all_targets"][step]
        assert tally.false_pixels == arrays["all_fa_pixels"][step]


def test_dconet_divides_by_frames_larger_than_its_maps(fixture):
    arrays = fixture("dconet")
    scores = scored("dconet", images_of(arrays)).scores()["dconet"]
    assert (scores.pd, scores.fa) == pytest.approx((arrays["all_pd"][0], arrays["all_fa"][0]), rel=1e-9)
    assert scores.fa == pytest.approx(35 / (512 * 512 * 11))


@pytest.mark.parametrize(("name", "key"), [("dstransnet-a", "serank"), ("dstransnet-b", "pdfa")])
def test_pd_and_fa_of_dstransnet_over_thresholds(fixture, name, key):
    arrays = fixture("dstransnet")
    samples = [Sample(*image) for image in images_of(arrays)]
    for step in range(0, 101, 5):
        tally = replace(definition(name).targets, cut=ThresholdRule(step / 100)).tally()
        for sample in samples:
            tally.add(sample)
        assert tally.pd == pytest.approx(arrays[f"all_{key}_Pd_all"][step]), step
        assert tally.fa == pytest.approx(arrays[f"all_{key}_Fa_all"][step]), step


CURVES = {
    "abc": ("madnet", "pixels", "all_fpr", "all_tpr"),
    "dstransnet-a": ("dstransnet", "pixels", "all_fp_rates", "all_tp_rates"),
    "dconet": ("dconet", "targets", "all_fpr", "all_tpr"),
    "rdian": ("rdian", "pixels", "all_roc_fpr", "all_roc_tpr"),
    "rdian, targets": ("rdian", "targets", "all_roc_fpr", "all_roc_target"),
}


@pytest.mark.parametrize(
    ("name", "file", "kind", "false", "hit"), [(n.split(",")[0], *c) for n, c in CURVES.items()]
)
def test_curves_are_those_published(fixture, name, file, kind, false, hit):
    arrays = fixture(file)
    images = images_of(arrays)
    if file == "rdian":  # its reference was given logits, which have no 0 and 1
        images = [(probability.clip(1e-6, 1 - 1e-6), mask) for probability, mask in images]
    curve = scored(name, images).curves()[name][kind]
    assert curve.false_rates == pytest.approx(arrays[false], rel=1e-6, abs=1e-12)
    assert curve.hit_rates == pytest.approx(arrays[hit], rel=1e-6, abs=1e-12)
