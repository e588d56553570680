"""Named definitions of the mask metrics: that of this project and those of published evaluations.

The default definition pairs targets and predicted components one to one, so that a component that merges two
targets hits one of them; by the best pairs, so that the order of components does not matter; by centroids,
since the IoU of a few pixels changes abruptly with each of them. Every pixel of a component without a target
is false, whatever the component's area and position. The threshold is absolute, since one relative to the
maximum of the map always predicts something. An image with neither targets nor predictions scores 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from pipeline.evaluation.segmentation.pixel_metrics import PixelRule
from pipeline.evaluation.segmentation.roc import RocCurve, RocRule
from pipeline.evaluation.segmentation.sample import ThresholdRule
from pipeline.evaluation.segmentation.tallies import Rule, Tallies
from pipeline.evaluation.segmentation.target_metrics import TargetRule
from pipeline.system.errors import unknown_name


@dataclass(frozen=True)
class MaskScores:
    """Metrics of one definition; ratios are in [0, 1]. None if not part of the definition, or undefined."""

    iou: float | None = None
    """Intersection over union of the pixels of all images together (often called mIoU in this field)."""
    niou: float | None = None
    """Mean of the IoU of each image (nIoU)."""
    f1: float | None = None
    """Harmonic mean of precision and recall of the pixels of all images together."""
    precision: float | None = None
    """True positives over predicted pixels."""
    recall: float | None = None
    """True positives over target pixels."""
    pixel_accuracy: float | None = None
    """pixAcc: true positives over annotated pixels, grey ones included even if they are not targets."""
    detection_rate: float | None = None
    """Images with an IoU above 0.5 over all images."""
    pd: float | None = None
    """Probability of detection: hits over targets."""
    fa: float | None = None
    """False-alarm rate: false pixels over all pixels. Papers and text tables give it in units of 1e-6."""
    hits: int | None = None
    targets: int | None = None
    false_pixels: int | None = None
    false_alarms_per_image: float | None = None
    """Predicted components without a target per image."""
    auc: float | None = None
    """Area under the ROC curve of pixels."""
    target_auc: float | None = None
    """Area under the curve of target hit rate over pixel false-positive rate."""

    def as_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Definition:
    """How each metric is computed; None for a metric that is not part of the definition."""

    name: str
    source: str
    """Evaluations that use the definition."""
    remark: str
    """What matters when values are compared, in one line."""
    iou: PixelRule | None = None
    niou: PixelRule | None = None
    f1: PixelRule | None = None
    """Rule of F1, precision and recall."""
    damped: bool = False
    """Whether small constants are added to the denominators of precision, recall and F1."""
    blank: float = 0.0
    """IoU and F1 of images with neither annotated nor predicted pixels."""
    detection_rate: bool = False
    targets: TargetRule | None = None
    roc: RocRule | None = None
    target_roc: RocRule | None = None
    auc: bool = True
    """Whether the areas under the curves are among the metrics."""

    def rules(self) -> Iterator[Rule]:
        """Yields all rules that have to be counted."""
        rules = (self.iou, self.niou, self.f1, self.targets, self.roc, self.target_roc)
        return (rule for rule in rules if rule is not None)

    def curves(self, tallies: Tallies) -> dict[str, RocCurve]:
        """Returns the ROC curves by what the hit rate counts: `pixels`, `targets`."""
        rules = {"pixels": self.roc, "targets": self.target_roc}
        return {name: tallies.curves[rule].curve() for name, rule in rules.items() if rule is not None}

    def scores(self, tallies: Tallies) -> MaskScores:
        """Returns the metrics from the counts of the rules."""
        values: dict[str, Any] = {}
        if self.iou:
            pixels = tallies.pixels[self.iou]
            values |= {"iou": pixels.iou(blank=self.blank), "pixel_accuracy": pixels.accuracy()}
            if self.detection_rate and pixels.images:
                values["detection_rate"] = pixels.images_above_half / pixels.images
        if self.niou:
            values["niou"] = tallies.pixels[self.niou].mean_iou(blank=self.blank)
        if self.f1:
            pixels = tallies.pixels[self.f1]
            values["f1"] = pixels.f1(blank=self.blank, damped=self.damped)
            values["precision"] = pixels.precision(damped=self.damped)
            values["recall"] = pixels.recall(damped=self.damped)
        if self.targets:
            targets = tallies.targets[self.targets]
            values |= {"pd": targets.pd, "fa": targets.fa, "hits": targets.hits, "targets": targets.targets}
            values["false_pixels"] = targets.false_pixels
            if targets.images and targets.false_components is not None:
                values["false_alarms_per_image"] = targets.false_components / targets.images
        if self.auc:
            areas = {name: curve.area() for name, curve in self.curves(tallies).items()}
            values |= {"auc": areas.get("pixels"), "target_auc": areas.get("targets")}
        return MaskScores(**values)

    def as_dict(self) -> dict[str, Any]:
        """Returns the rules as plain values for JSON."""
        return asdict(self)


_FULL = PixelRule(grey="background")
_WRONG = PixelRule(grey="wrong")
_RELATIVE = PixelRule(ThresholdRule(relative=True), grey="background")
_FIRST_COME = TargetRule(grey="background", hit="first come")
_AREAS = replace(_FIRST_COME, false="areas")

_DEFAULT = Definition(
    "default",
    "this project",
    "components paired one to one by centroids closer than 3 px, most pairs first, then the smallest total "
    "distance; all other components are false; an image with neither targets nor predictions has IoU 1",
    iou=PixelRule(),
    niou=PixelRule(),
    f1=PixelRule(),
    blank=1.0,
    targets=TargetRule(),
    roc=RocRule(),
    target_roc=RocRule(hit="touched"),
)
_PUBLISHED = (
    Definition(
        "basicirstd",
        "BasicIRSTD toolbox, and the benchmark tables made with it",
        "centroids closer than 3 px, first come; the pixels of components without a target are false",
        iou=_FULL,
        targets=_FIRST_COME,
    ),
    Definition(
        "abc",
        "ABC, MAD-Net, DRTENet",
        "first come; a false component of the same area as any matched one in the image is not counted; "
        "blank images have IoU 0; grey mask pixels are errors either way in F1",
        iou=_FULL,
        niou=_FULL,
        f1=_WRONG,
        damped=True,
        targets=_AREAS,
        roc=RocRule(steps=10, grey="wrong", damped=True),
        auc=False,
    ),
    Definition(
        "dstransnet-a",
        "DSTransNet (Pd and Fa: also DNANet, SCTransNet)",
        "Pd and Fa as abc; AUC over thresholds k/100, truncated if many probabilities are exactly 0",
        iou=_FULL,
        niou=_FULL,
        f1=_FULL,
        damped=True,
        targets=_AREAS,
        roc=RocRule(steps=100, grey="background", damped=True),
    ),
    Definition(
        "dstransnet-b",
        "DSTransNet's other Pd and Fa",
        "predicted pixels in an image row that contains pixels of a hit target are never false",
        targets=replace(_FIRST_COME, false="rows"),
    ),
    Definition(
        "datransnet",
        "DATransNet",
        "F1, Pd, Fa (not IoU): threshold at half of the image's own maximum; areas as in abc",
        iou=_FULL,
        f1=_RELATIVE,
        targets=replace(_AREAS, cut=ThresholdRule(relative=True)),
        roc=RocRule(grey="background"),
    ),
    Definition(
        "dconet",
        "DCONet's tables",
        "IoU, nIoU, F1: threshold at half of the image's own maximum; Pd, Fa: closer than 2 px, areas as in "
        "abc, Fa per 512x512 pixels whatever the size; AUC: targets touched, own maximum, no empty images",
        iou=_RELATIVE,
        niou=_RELATIVE,
        f1=_RELATIVE,
        targets=replace(_AREAS, distance=2.0, frame=512 * 512),
        target_roc=RocRule(
            steps=200, inclusive=True, relative=True, grey="background", hit="touched", skip_empty=True
        ),
    ),
    Definition(
        "dconet-training",
        "DCONet while training, and its logs",
        "probability above 0.5",
        iou=_FULL,
        f1=_FULL,
    ),
    Definition(
        "rdian",
        "RDIAN's release",
        "blank images have IoU 0; detection rate: share of images with an IoU above 0.5; target curve: a 2x2 "
        "window above and left of the centroid, which even a perfect map may miss",
        iou=_FULL,
        niou=_FULL,
        detection_rate=True,
        roc=RocRule(steps=255, grey="background", damped=True),
        target_roc=RocRule(steps=255, grey="background", damped=True, hit="window"),
        auc=False,
    ),
    Definition(
        "dtum",
        "DTUM",
        "a target is hit by any predicted pixel within 1 px (3x3), several targets may share one; predicted "
        "pixels more than 4 px (9x9) from every target are false",
        targets=TargetRule(grey="background", hit="guard", false="guard"),
    ),
)


def definitions(threshold: float = 0.5) -> dict[str, Definition]:
    """Returns all definitions by name, the default first.

    `threshold` is that of the definitions of this project; the published ones fix their own.
    """
    cut = ThresholdRule(threshold)
    default = replace(
        _DEFAULT, iou=PixelRule(cut), niou=PixelRule(cut), f1=PixelRule(cut), targets=TargetRule(cut)
    )
    four_connected = Definition(
        "default-4",
        "this project",
        "pixels that touch at corners only are separate components; otherwise as default",
        targets=TargetRule(cut, connectivity=4),
    )
    return {row.name: row for row in (default, four_connected, *_PUBLISHED)}


def definition(name: str, threshold: float = 0.5) -> Definition:
    """Returns one definition; see `definitions`. Raises UsageError for an unknown name."""
    table = definitions(threshold)
    if name not in table:
        raise unknown_name("definition", name, table)
    return table[name]
