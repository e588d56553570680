"""Our networks in mmengine's Runner: train, validate, keep checkpoints, go on from the last one."""

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
    """Run the training that a configuration describes; returns the folder with its checkpoints.

    Args:
        path: the configuration. It is run as a Python program.
        root: folder of the data, in place of that of each `MoteClips` in the configuration.
        work_dir: where checkpoints and logs go; else what the configuration says, else runs/mmdet/NAME.
        resume: go on from the last checkpoint in that folder, where there is one. It is read as one of the
            user's own, see `checkpoints.resuming`.
        settings: `a.b=value` in place of what the configuration says.

    Raises UsageError for a configuration that cannot be read, or parts of mmdet that are not installed,
    WeightsError for a checkpoint of other contents.
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
    with checkpoints.resuming():
        try:
            Runner.from_cfg(config).train()
        except UnpicklingError as error:
            raise WeightsError(
                f"the checkpoint that {config.work_dir} or load_from names holds types that no run of "
                "mmengine stores; use another"
            ) from error
    return Path(config.work_dir)
