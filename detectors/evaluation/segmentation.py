"""How good a segmenter is on single frames with masks, at their own size."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from datasets.sequences.clips import VideoSequence, read_sequence
from pipeline.evaluation.segmentation.definitions import Definition, definitions
from pipeline.evaluation.segmentation.scorer import MaskScorer
from pipeline.evaluation.segmentation.tables import tables
from pipeline.system.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from datasets.layouts.registry import Dataset
    from detectors.networks.segmenters.base import Segmenter


def score_masks(
    model: Segmenter,
    sequences: Iterable[VideoSequence],
    *,
    stride: int = 1,
    chosen: Iterable[Definition] | None = None,
    flip_averaging: bool = False,
    enlarge: float = 1.0,
    advance: Callable[[], None] = lambda: None,
) -> MaskScorer:
    """Every `stride`-th annotated frame of sequences with masks, scored by the chosen definitions (all).

    `advance` is called after each frame. The model is given back in the mode it came in. Raises UsageError
    for a sequence without masks.
    """
    from detectors.inference.probability_maps import ProbabilityMaps

    scorer, training = MaskScorer(chosen), model.training
    device = str(next(model.parameters()).device)
    try:
        maps = ProbabilityMaps(model, enlarge=enlarge, flip_averaging=flip_averaging, device=device)
        for sequence in sequences:
            if not sequence.masks:
                raise UsageError(f"{sequence.name} has no masks to measure a segmenter on; choose other data")
            for position in sequence.key_frames[::stride]:
                scorer.add(maps(sequence.frames[position]), sequence.masks[position])
                advance()
    finally:
        model.train(training)
    return scorer


def report(model: Segmenter, dataset: Dataset, options: argparse.Namespace, *, enlarge: float) -> None:
    """Measure on a dataset and print the table; write the numbers where `options` of `detectors.evaluate`
    say.

    Raises SourceError for pictures that cannot be read, UsageError for data without masks, OutputError.
    """
    from pipeline.evaluation.segmentation.scorer import write_scores
    from pipeline.system.progress import Progress

    with Progress(len(dataset.records)) as progress:
        scorer = score_masks(
            model,
            (read_sequence(record, dataset.root) for record in dataset.records),
            stride=options.stride,
            chosen=definitions(options.threshold).values(),
            flip_averaging=options.flip_averaging,
            enlarge=enlarge,
            advance=progress.advance,
        )
    print(tables(scorer, options.threshold))
    if options.output:
        facts = {"threshold": options.threshold, "flip_averaging": options.flip_averaging}
        write_scores(options.output, scorer, facts)
    if options.plots:
        from pipeline.evaluation.segmentation.plots import plot

        print(f"\nplot: {plot(scorer, options.plots)}")
