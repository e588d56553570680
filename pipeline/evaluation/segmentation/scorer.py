"""The numbers of many images, taken in one by one: for finished maps, and while a network is trained."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pipeline.evaluation.segmentation.definitions import Definition, MaskScores, definitions
from pipeline.evaluation.segmentation.roc import Curve
from pipeline.evaluation.segmentation.sample import Sample
from pipeline.system import cli
from pipeline.system.errors import UsageError

if TYPE_CHECKING:
    from pipeline.evaluation.segmentation.map_files import Pair


class ImageScores(NamedTuple):
    """One image by itself, by the first definition; None for what that does not define."""

    iou: float | None
    """None where nothing is annotated and nothing found, too."""
    hits: int | None
    targets: int | None
    false_pixels: int | None


class MaskScorer:
    """Counts by all definitions given (default: every one), so that no image is kept.

    Rules that several definitions share are counted once. The default definition alone is the fastest, for
    use in training: `MaskScorer([definition("default")])`.
    """

    def __init__(self, chosen: Iterable[Definition] | None = None):
        self.definitions = {row.name: row for row in (definitions().values() if chosen is None else chosen)}
        rules = (rule for row in self.definitions.values() for rule in row.rules())
        self._tallies = {rule: rule.tally() for rule in rules}
        self.images = 0
        """How many were added."""
        self.empty_images = 0
        """Those without targets among them: no mask pixel above 0.5."""
        self.pixels = 0
        """Of all images together."""

    def add(self, probability: np.ndarray, mask: np.ndarray) -> ImageScores:
        """Count one image: probability (H, W), floating in [0, 1]; mask (H, W), bool or floating in [0, 1].

        Maps and masks without anything in them are as good as others. Raises ValueError for other shapes and
        values, before anything is counted.
        """
        sample = Sample(np.asarray(probability), np.asarray(mask))
        results = {rule: tally.add(sample) for rule, tally in self._tallies.items()}
        self.images += 1
        self.pixels += sample.pixels
        self.empty_images += not sample.targets("half").any()
        first = next(iter(self.definitions.values()))
        verdict = results.get(first.targets)
        return ImageScores(results.get(first.iou), *(verdict[:3] if verdict else (None, None, None)))

    def scores(self) -> dict[str, MaskScores]:
        """The numbers so far, by the name of the definition; counting may go on."""
        return {name: row.scores(self._tallies) for name, row in self.definitions.items()}

    def curves(self) -> dict[str, dict[str, Curve]]:
        """By the name of the definition and what its rate of hits counts (`pixels`, `targets`)."""
        return {name: row.curves(self._tallies) for name, row in self.definitions.items()}


def _scored(scorer: MaskScorer, image: Pair, *, logits: bool) -> dict:
    """Add one image; returns its own numbers by the default definition. Raises UsageError, SourceError."""
    import numpy as np

    from pipeline.evaluation.segmentation.map_files import read_levels, read_map

    mask = read_levels(image.mask)
    found = read_map(image.prediction, logits=logits) if image.prediction else np.zeros_like(mask)
    if found.shape != mask.shape:
        sizes = [f"{width}x{height}" for height, width in (found.shape, mask.shape)]
        raise UsageError(f"{image.prediction} is {sizes[0]}, its mask {image.mask} is {sizes[1]}")
    return {"name": image.name, **scorer.add(found, mask)._asdict()}


def write_scores(path: Path, scorer: MaskScorer, sections: dict) -> None:
    """Write the JSON: the default's numbers at the top, all under `definitions`, and what is in `sections`.

    Raises OutputError.
    """
    scores = {name: row.as_dict() for name, row in scorer.scores().items()}
    rules = {name: row.as_dict() for name, row in scorer.definitions.items()}
    counts = {"images": scorer.images, "empty_images": scorer.empty_images}
    table = {**scores["default"], **counts, "definitions": scores, "rules": rules, **sections}
    cli.write_json(path, table)
