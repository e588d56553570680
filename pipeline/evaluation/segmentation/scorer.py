"""Mask metrics accumulated image by image, for finished maps and during training."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipeline.evaluation.segmentation.definitions import Definition, MaskScores, definitions
from pipeline.evaluation.segmentation.map_files import MapMaskPair, read_map
from pipeline.evaluation.segmentation.roc import RocCurve
from pipeline.evaluation.segmentation.sample import Sample
from pipeline.evaluation.segmentation.tallies import Tallies
from pipeline.imaging.mask_files import read_mask_file
from pipeline.system import cli
from pipeline.system.errors import UsageError


class ImageScores(NamedTuple):
    """Metrics of one image by the first definition; None for what it does not define."""

    iou: float | None
    """Also None if the image is blank: nothing annotated and nothing predicted."""
    hits: int | None
    targets: int | None
    false_pixels: int | None


class MaskScorer:
    """Accumulates the metrics of several definitions without storing images.

    Rules that several definitions share are counted once. The default definition alone is the fastest, for
    use in training: `MaskScorer([definition("default")])`.

    Args:
        chosen: definitions to compute; None for all.
    """

    def __init__(self, chosen: Iterable[Definition] | None = None):
        self.definitions = {row.name: row for row in (definitions().values() if chosen is None else chosen)}
        self._tallies = Tallies(rule for row in self.definitions.values() for rule in row.rules())
        self.images = 0
        """Images added."""
        self.empty_images = 0
        """Images added without any mask pixel above 0.5."""
        self.pixels = 0
        """Pixels of all images added."""

    def add(self, probability: np.ndarray, mask: np.ndarray) -> ImageScores:
        """Adds one image; it may be empty.

        Args:
            probability: (H, W) floating point in [0, 1].
            mask: (H, W) bool, or floating point in [0, 1].

        Raises:
            ValueError: other shapes, dtypes or values. Nothing is counted then.
        """
        sample = Sample(np.asarray(probability), np.asarray(mask))
        results = self._tallies.add(sample)
        self.images += 1
        self.pixels += sample.pixels
        self.empty_images += not sample.targets("half").any()
        first = next(iter(self.definitions.values()))
        iou = results.ious[first.iou] if first.iou else None
        if first.targets is None:
            return ImageScores(iou, None, None, None)
        counts = results.targets[first.targets]
        return ImageScores(iou, counts.hits, counts.targets, counts.false_pixels)

    def scores(self) -> dict[str, MaskScores]:
        """Returns the metrics of the images added so far by the name of the definition."""
        return {name: row.scores(self._tallies) for name, row in self.definitions.items()}

    def curves(self) -> dict[str, dict[str, RocCurve]]:
        """Returns the ROC curves by definition and by what the hit rate counts (`pixels`, `targets`)."""
        return {name: row.curves(self._tallies) for name, row in self.definitions.items()}


def score_files(scorer: MaskScorer, image: MapMaskPair, *, logits: bool) -> dict[str, Any]:
    """Adds the files of one image and returns its name and `ImageScores` as plain values.

    A missing map counts as empty. If it is in doubt what the background of the mask is, `remark` tells what
    was taken for it. Raises SourceError if a file cannot be read, UsageError if map and mask
    differ in size.
    """
    file = read_mask_file(image.mask)
    mask, remark = file.levels, file.meaning.remark
    probability = read_map(image.prediction, logits=logits) if image.prediction else np.zeros_like(mask)
    if probability.shape != mask.shape:
        sizes = [f"{width}x{height}" for height, width in (probability.shape, mask.shape)]
        raise UsageError(f"{image.prediction} is {sizes[0]}, its mask {image.mask} is {sizes[1]}")
    row = {"name": image.name, **scorer.add(probability, mask)._asdict()}
    return row | ({"remark": remark} if remark else {})


def write_scores(path: Path, scorer: MaskScorer, sections: dict[str, Any]) -> None:
    """Writes the metrics as JSON.

    The top level has those of the default definition, `definitions` those of all, and `sections` are added.
    Raises OutputError if the file cannot be written.
    """
    scores = {name: row.as_dict() for name, row in scorer.scores().items()}
    rules = {name: row.as_dict() for name, row in scorer.definitions.items()}
    counts = {"images": scorer.images, "empty_images": scorer.empty_images}
    content = {**scores["default"], **counts, "definitions": scores, "rules": rules, **sections}
    cli.write_json(path, content)
