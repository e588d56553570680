"""Identities of the targets of an annotated video."""

from __future__ import annotations

import numpy as np

from pipeline.structures.annotations import VideoRecord
from pipeline.system.errors import UsageError


def target_identities(record: VideoRecord) -> tuple[np.ndarray, ...]:
    """Returns the identity of each annotated box: per frame (N,) int64.

    Missing identities are filled in: a target without one is taken to be the same target as long as each
    annotated frame has exactly one such target, and a new one after every interruption. Raises UsageError if
    a frame has several targets without identity, or one identity twice.
    """
    instances = record.instances or tuple(np.full(len(boxes), -1) for boxes in record.boxes)
    filled_identity = max((int(ids.max()) for ids in instances if len(ids)), default=-1)
    identities, continued = [], False
    for frame, annotated in enumerate(instances):
        if frame not in record.image_ids:
            identities.append(np.zeros(0, dtype=np.int64))
            continue
        missing = int((annotated < 0).sum())
        if missing > 1:
            raise UsageError(
                f"frame {frame} of '{record.name}' has {missing} targets without identities, which cannot "
                "be told apart; scoring tracks needs 'instance_id' or at most one target in a frame"
            )
        filled_identity += bool(missing and not continued)
        continued = bool(missing)
        identities.append(np.where(annotated < 0, filled_identity, annotated).astype(np.int64))
        if len(np.unique(identities[-1])) < len(annotated):
            ids = sorted(annotated.tolist())
            raise UsageError(f"frame {frame} of '{record.name}' has an identity twice: {ids}")
    return tuple(identities)
