"""The metrics by the names of those who define them, in one table, so that like is compared with like.

The default is what these argue for together. Targets and groups of found pixels are paired one to one, so
that a group that merges two targets hits one of them; the best pairs are taken, so that the numbering of
groups does not matter; by centroids, since the IoU of a few pixels jumps with each of them. Every pixel of a
group without a target is false, whatever its area and wherever it is. The threshold is absolute: one relative
to the maximum cannot say that there is nothing. Where there is nothing and nothing is found, all is right.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from pipeline.evaluation.segmentation.pixel_metrics import PixelRule
from pipeline.evaluation.segmentation.roc import Curve, CurveRule
from pipeline.evaluation.segmentation.sample import Cut
from pipeline.evaluation.segmentation.target_metrics import TargetRule
from pipeline.system.errors import unknown_name

Rule = PixelRule | TargetRule | CurveRule


@dataclass(frozen=True)
class MaskScores:
    """The numbers of one definition, in [0, 1]; None for what it does not define or the images leave open."""

    iou: float | None = None
    """Intersection over union of the pixels of all images together ("mIoU" in this field)."""
    niou: float | None = None
    """Mean of the images' own IoU."""
    f1: float | None = None
    """Harmonic mean of precision and recall of the pixels of all images together."""
    precision: float | None = None
    """Share of the found pixels that are target."""
    recall: float | None = None
    """Share of the target's pixels that were found."""
    pixel_accuracy: float | None = None
    """`pixAcc`: as recall, but grey mask pixels count as missed where they are not targets."""
    detection_rate: float | None = None
    """Share of the images with an IoU above 0.5."""
    pd: float | None = None
    """Share of the targets that were hit."""
    fa: float | None = None
    """False pixels over all pixels, a plain ratio; papers and the table for people give it in 1e-6."""
    hits: int | None = None
    targets: int | None = None
    false_pixels: int | None = None
    false_alarms_per_image: float | None = None
    """Groups of found pixels without a target, per image."""
    auc: float | None = None
    """Area below hit rate over false rate of the pixels."""
    target_auc: float | None = None
    """The same with the hit rate of the targets."""

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Definition:
    """How each number comes about; None for what is not part of the definition."""

    name: str
    source: str
    """Who evaluates like this."""
    remark: str
    """What to know when comparing, in a line."""
    iou: PixelRule | None = None
    niou: PixelRule | None = None
    f1: PixelRule | None = None
    """Precision and recall are by the same rule."""
    damped: bool = False
    """Whether a little is added to the denominators of precision, recall and F1."""
    blank: float = 0.0
    """What IoU and F1 are where nothing is annotated and nothing found."""
    detection_rate: bool = False
    targets: TargetRule | None = None
    roc: CurveRule | None = None
    target_roc: CurveRule | None = None
    auc: bool = True
    """Whether the areas below the curves are among the numbers."""

    def rules(self) -> Iterator[Rule]:
        """All that has to be counted."""
        rules = (self.iou, self.niou, self.f1, self.targets, self.roc, self.target_roc)
        return (rule for rule in rules if rule is not None)

    def curves(self, tallies: Mapping[Rule, Any]) -> dict[str, Curve]:
        """The curves by what the rate of hits counts: `pixels`, `targets`."""
        rules = {"pixels": self.roc, "targets": self.target_roc}
        return {name: tallies[rule].curve() for name, rule in rules.items() if rule is not None}

    def scores(self, tallies: Mapping[Rule, Any]) -> MaskScores:
        """The numbers, from the counts of its rules."""
        values: dict[str, Any] = {}
        if self.iou:
            tally = tallies[self.iou]
            values |= {"iou": tally.iou(blank=self.blank), "pixel_accuracy": tally.accuracy()}
            if self.detection_rate and tally.images:
                values["detection_rate"] = tally.above_half / tally.images
        if self.niou:
            values["niou"] = tallies[self.niou].mean_iou(blank=self.blank)
        if self.f1:
            tally = tallies[self.f1]
            values["f1"] = tally.f1(blank=self.blank, damped=self.damped)
            values |= {name: getattr(tally, name)(damped=self.damped) for name in ("precision", "recall")}
        if self.targets:
            tally = tallies[self.targets]
            values |= {name: getattr(tally, name) for name in ("pd", "fa", "hits", "targets", "false_pixels")}
            if tally.images and tally.false_groups is not None:
                values["false_alarms_per_image"] = tally.false_groups / tally.images
        if self.auc:
            areas = {name: curve.area() for name, curve in self.curves(tallies).items()}
            values |= {"auc": areas.get("pixels"), "target_auc": areas.get("targets")}
        return MaskScores(**values)

    def as_dict(self) -> dict[str, Any]:
        """The rules as plain values, for JSON."""
        return asdict(self)


_FULL = PixelRule(grey="background")
_WRONG = PixelRule(grey="wrong")
_RELATIVE = PixelRule(Cut(relative=True), grey="background")
_FIRST_COME = TargetRule(grey="background", hit="first come")
_AREAS = replace(_FIRST_COME, false="areas")

_DEFAULT = Definition(
    "default",
    "this project",
    "one to one by centroids closer than 3 px: most pairs, then the closest; all other groups are false; an "
    "image with nothing to find and nothing found has IoU 1",
    iou=PixelRule(),
    niou=PixelRule(),
    f1=PixelRule(),
    blank=1.0,
    targets=TargetRule(),
    roc=CurveRule(),
    target_roc=CurveRule(hit="touched"),
)
_PUBLISHED = (
    Definition(
        "basicirstd",
        "BasicIRSTD toolbox, and the benchmark tables made with it",
        "centroids closer than 3 px, first come; the pixels of groups without a target are false",
        iou=_FULL,
        targets=_FIRST_COME,
    ),
    Definition(
        "abc",
        "ABC, MAD-Net, DRTENet",
        "first come; a false group as large as any matched one in the image is not counted; blank images "
        "have IoU 0; grey mask pixels are wrong either way in F1",
        iou=_FULL,
        niou=_FULL,
        f1=_WRONG,
        damped=True,
        targets=_AREAS,
        roc=CurveRule(steps=10, grey="wrong", damped=True),
        auc=False,
    ),
    Definition(
        "dstransnet-a",
        "DSTransNet (Pd and Fa: also DNANet, SCTransNet)",
        "Pd and Fa as abc; AUC of thresholds k/100, cut off where scores of exactly 0 are many",
        iou=_FULL,
        niou=_FULL,
        f1=_FULL,
        damped=True,
        targets=_AREAS,
        roc=CurveRule(steps=100, grey="background", damped=True),
    ),
    Definition(
        "dstransnet-b",
        "DSTransNet's other Pd and Fa",
        "found pixels in a row that a hit target has pixels in are never false",
        targets=replace(_FIRST_COME, false="rows"),
    ),
    Definition(
        "datransnet",
        "DATransNet",
        "F1, Pd, Fa: found is what exceeds half of the image's own maximum, IoU apart; areas as in abc",
        iou=_FULL,
        f1=_RELATIVE,
        targets=replace(_AREAS, cut=Cut(relative=True)),
        roc=CurveRule(grey="background"),
    ),
    Definition(
        "dconet",
        "DCONet's tables",
        "IoU, nIoU, F1: half of the image's own maximum; Pd, Fa: closer than 2 px, areas as in abc, Fa per "
        "512x512 pixels whatever the size; AUC: targets touched, own maximum, no empty images",
        iou=_RELATIVE,
        niou=_RELATIVE,
        f1=_RELATIVE,
        targets=replace(_AREAS, distance=2.0, frame=512 * 512),
        target_roc=CurveRule(
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
        "window up and left of the centroid, which even a perfect map may miss",
        iou=_FULL,
        niou=_FULL,
        detection_rate=True,
        roc=CurveRule(steps=255, grey="background", damped=True),
        target_roc=CurveRule(steps=255, grey="background", damped=True, hit="window"),
        auc=False,
    ),
    Definition(
        "dtum",
        "DTUM",
        "a target is hit by any found pixel within 1 px of it (3x3), several may share one; false are found "
        "pixels more than 4 px (9x9) from every target",
        targets=TargetRule(grey="background", hit="guard", false="guard"),
    ),
)


def definitions(threshold: float = 0.5) -> dict[str, Definition]:
    """All definitions by name, the default first.

    `threshold` is that of the project's own; published ones have 0.5, which is part of what they define.
    """
    cut = Cut(threshold)
    default = replace(
        _DEFAULT, iou=PixelRule(cut), niou=PixelRule(cut), f1=PixelRule(cut), targets=TargetRule(cut)
    )
    sides = Definition(
        "default-4",
        "this project",
        "pixels that touch at corners alone are apart; else as default",
        targets=TargetRule(cut, connectivity=4),
    )
    return {row.name: row for row in (default, sides, *_PUBLISHED)}


def definition(name: str, threshold: float = 0.5) -> Definition:
    """One definition. Raises UsageError for an unknown name."""
    table = definitions(threshold)
    if name not in table:
        raise unknown_name("definition", name, table)
    return table[name]
