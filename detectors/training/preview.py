"""Contact sheet of the clips that a training run would start with."""

from __future__ import annotations

import math
from pathlib import Path

import cv2

from datasets.augmentation.contact_sheet import contact_sheet
from detectors.networks import registry
from detectors.training.data import batch_clips, training_clips
from detectors.training.recipe import Recipe
from detectors.training.tasks import task_for
from pipeline.system.errors import OutputError
from pipeline.system.signals import StopRequest


def show_batch(recipe: Recipe, path: Path, stop: StopRequest) -> None:
    """Writes the clips of the first batch as PNG, those of the last, too, if only that one has whole frames.

    Prints the number of clips and the path. Raises OutputError if the file cannot be written, UsageError if
    the recipe cannot be trained, and as `training_clips`.
    """
    model = registry.build(recipe.model.name, **recipe.model.options)
    task_for(model, recipe)  # raises if the recipe does not fit the network
    sampler = training_clips(recipe, stop, frames=model.frames, num_classes=model.num_classes)
    first, last = 0, recipe.schedule.steps * recipe.optimiser.accumulate - 1
    batches = [first, last] if 0 < recipe.schedule.whole_share < 1 else [first]
    indices = range(recipe.schedule.batch)
    clips = [clip for number in batches for clip in batch_clips(sampler, recipe, number, indices)]
    columns = 1 if model.frames > 1 else math.ceil(math.sqrt(len(clips)))
    _, png = cv2.imencode(".png", contact_sheet(clips, columns=columns))
    try:
        path.write_bytes(png.tobytes())
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}; choose another --show-batch") from error
    print(f"{len(clips)} clips of {model.frames} frame{'s' if model.frames > 1 else ''} in {path}")
