"""Ground truth of a source, read as a run does."""

from __future__ import annotations

from pathlib import Path

from pipeline.runner.ground_truth import SourceAnnotations, annotated_source, read_annotations
from pipeline.structures.frame import SourceInfo


def annotations_of(path: Path, info: SourceInfo, **options) -> SourceAnnotations:
    """Returns the annotations of one source; `options` are those of `annotated_source`, and `named`."""
    named = options.pop("named", "")
    (known,) = read_annotations(path, [annotated_source(info, **options)], named=named)
    assert known is not None
    return known
