"""Training in mmengine's Runner."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from pickle import UnpicklingError

from detectors.mmdet_adapter import checkpoints, configuration, installation
from pipeline.system.errors import WeightsError


def train(
    path: Path,
    *,
    root: Path | None = None,
    work_dir: Path | None = None,
    resume: bool = False,
    settings: Iterable[str] = (),
) -> Path:
    """Runs the training of a configuration; returns the folder with its checkpoints.

    Args:
        path: the configuration, which is executed as a Python program.
        root: folder of the data; replaces that of each `MoteClips` in the configuration.
        work_dir: folder for checkpoints and logs; by default that of the configuration, else
            runs/mmdet/NAME.
        resume: resume from the last checkpoint in that folder, if there is one. It is trusted as one of the
            user's own, see `checkpoints.allow_training_state`.
        settings: overrides of keys of the configuration, `a.b=value`.

    Raises UsageError if the configuration cannot be read or a part of mmdet is not installed, WeightsError if
    a checkpoint holds unknown types.
    """
    installation.prepare()
    from mmengine.runner import Runner

    config = configuration.read(path, settings)
    if root:
        for loader in ("train_dataloader", "val_dataloader", "test_dataloader"):
            if config.get(loader):
                config[loader].dataset.root = str(root)
    config.work_dir = str(work_dir or config.get("work_dir") or Path("runs", "mmdet", path.stem))
    config.resume = resume
    with checkpoints.allow_training_state():
        try:
            Runner.from_cfg(config).train()
        except UnpicklingError as error:
            raise WeightsError(
                f"the checkpoint in {config.work_dir} or load_from holds types that mmengine does not store; "
                "use another"
            ) from error
    return Path(config.work_dir)
