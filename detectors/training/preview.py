"""detectors.training.preview."""

from __future__ import annotations

import math
from pathlib import Path

from detectors.networks import registry
from detectors.training.data import batch_clips, training_clips
from detectors.training.recipe import Recipe
from pipeline.system.errors import OutputError
from pipeline.system.signals import StopRequest


def show_batch(recipe: Recipe, path: Path, stop: StopRequest) -> None:
    """Write the first clips that the recipe's network would see, crops and whole frames, as a contact sheet.

    Raises OutputError when the picture cannot be written, and what `training_clips` raises.
    """
    import cv2

    from datasets.augmentation.contact_sheet import sheet
    from detectors.training.tasks import objective_for

    model = registry.build(recipe.model.name, **recipe.model.options)
    objective_for(model, recipe)  # refuses what could not be trained
    sampler = training_clips(recipe, stop, frames=model.frames, num_classes=model.num_classes)
    first, last = 0, recipe.schedule.steps * recipe.optimiser.accumulate - 1
    kinds = [first, last] if 0 < recipe.schedule.whole_share < 1 else [first]
    places = range(recipe.schedule.batch)
    clips = [clip for number in kinds for clip in batch_clips(sampler, recipe, number, places)]
    columns = 1 if model.frames > 1 else math.ceil(math.sqrt(len(clips)))
    _, png = cv2.imencode(".png", sheet(clips, columns=columns))
    try:
        path.write_bytes(png.tobytes())
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}; choose another --show-batch") from error
    print(f"{len(clips)} clips of {model.frames} frame{'s' if model.frames > 1 else ''} in {path}")
