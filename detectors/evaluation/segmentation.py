"""Scores a segmenter on frames with masks, at the size of the frames."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from datasets.sequences.clips import VideoSequence, read_sequence
from pipeline.evaluation.segmentation.definitions import Definition, definitions
from pipeline.evaluation.segmentation.scorer import MaskScorer
from pipeline.evaluation.segmentation.tables import mask_tables
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
    """Scores every `stride`-th annotated frame of the sequences by the chosen definitions (default: all).

    `advance` is called after each frame. The training mode of the model is restored. Raises UsageError if a
    sequence has no masks.
    """
    from detectors.inference.probability_maps import ProbabilityMaps

    scorer, training = MaskScorer(chosen), model.training
    device = str(next(model.parameters()).device)
    try:
        maps = ProbabilityMaps(model, enlarge=enlarge, flip_averaging=flip_averaging, device=device)
        for sequence in sequences:
            if not sequence.masks:
                raise UsageError(f"{sequence.name} has no masks to score a segmenter by; choose other data")
            for position in sequence.key_frames[::stride]:
                scorer.add(maps(sequence.frames[position]), sequence.masks[position])
                advance()
    finally:
        model.train(training)
    return scorer


def report_masks(model: Segmenter, dataset: Dataset, options: argparse.Namespace, *, enlarge: float) -> None:
    """Scores a segmenter on a dataset, prints the table and writes the files that `options` ask for.

    `options` are those of `detectors.evaluate`. Raises SourceError if an image cannot be read, UsageError if
    the data have no masks, OutputError if a file cannot be written.
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
    print(mask_tables(scorer, options.threshold))
    if options.output:
        settings = {"threshold": options.threshold, "flip_averaging": options.flip_averaging}
        write_scores(options.output, scorer, settings)
    if options.plots:
        from pipeline.evaluation.segmentation.plots import plot_roc

        print(f"\nplot: {plot_roc(scorer, options.plots)}")
