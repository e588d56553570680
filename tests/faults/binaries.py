"""Fuzz targets of arrays and weights, with their readers, and the reader of all kinds of sources."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from pipeline.sources.opening import open_source
from pipeline.system.errors import SourceLost
from tests.faults.mutants import COUNT, SIZE, Seed, made, whole
from tests.support.media import grey_frames


def frames_of(path: Path) -> str:
    """Reads all frames of a source."""
    given = 0
    with open_source(path) as source:
        try:
            for _ in source:
                given += 1
        except SourceLost:
            return "some frames, then a loss"
    return "all frames" if given == COUNT else "fewer or more frames"


# Zarr


def in_store(files: dict[str, bytes], folder: Path) -> Path:
    """Writes a store under a name that is recognised as one."""
    whole(files, folder / "a.zarr")
    return folder / "a.zarr"


def zarr() -> list[Seed]:
    """Returns seeds of stores of both format versions with all compressors."""
    import zarr
    from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec

    data = np.stack(grey_frames(COUNT, *SIZE[::-1]))
    options = [
        {"zarr_format": 2, "compressors": None},
        {"zarr_format": 2},
        {"zarr_format": 3, "compressors": [BloscCodec()]},
        {"zarr_format": 3, "compressors": [GzipCodec()]},
        {"zarr_format": 3, "compressors": [ZstdCodec()]},
    ]
    return [
        Seed(
            made(lambda folder, more=more: zarr.create_array(folder, data=data, chunks=(2, 12, 32), **more)),
            in_store,
            frames_of,
        )
        for more in options
    ]


# Weights


def zipped(files: dict[str, bytes], folder: Path) -> Path:
    """Writes files as a torch checkpoint with correct checksums."""
    path = folder / "a.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            archive.writestr(f"a/{name}", data)
    return path


def members(path: Path) -> dict[str, bytes]:
    """Returns the files within a torch checkpoint."""
    with zipfile.ZipFile(path) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def read_weights(detector: str) -> Callable[[Path], str]:
    """Returns a reader of weights as for `--weights`."""

    def read(path: Path) -> str:
        from detectors.weights import restore

        restore.restore_network(detector, str(path))
        restore.trained_enlargement(path)
        return "loaded"

    return read


def read_checkpoint(path: Path) -> str:
    """Reads the checkpoint of a training run as for resuming it."""
    import torch

    from detectors.training import checkpoint
    from detectors.training.recipe import Recipe

    checkpoint.load(path, asdict(Recipe()), device=torch.device("cpu"))
    return "loaded"


def weights() -> list[Seed]:
    """Returns seeds of weights with metadata in both formats and of a training checkpoint."""
    import torch

    import detectors
    from detectors.training.recipe import Recipe
    from detectors.weights import state_dict

    recipe = {"model": {"name": "rdian", "options": {}}, "data": {"enlarge": 1.5}}
    nano = {**recipe, "model": {"name": "tridos-nano", "options": {"num_classes": 1}}}
    few = {"head.cls_preds.0.bias": torch.zeros(1), "head.cls_preds.0.weight": torch.zeros(1, 8, 1, 1)}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = detectors.build("rdian").state_dict()

    def checkpoint(value: object) -> dict[str, bytes]:
        with tempfile.TemporaryDirectory() as folder:
            torch.save(value, Path(folder, "a.pt"))
            return members(Path(folder, "a.pt"))

    def tensors(value: dict, metadata: dict) -> dict[str, bytes]:
        return made(
            lambda folder: state_dict.save(value, folder / "a.safetensors", metadata={"recipe": metadata})
        )

    training = {"step": 3, "model": few, "recipe": asdict(Recipe()), "best": {"ap50": 0.5}}
    return [
        Seed(tensors(state, recipe), whole, read_weights("rdian")),
        Seed(tensors(few, nano), whole, read_weights("tridos-nano")),
        Seed(
            checkpoint({"state_dict": {f"module.{k}": v for k, v in few.items()}}),
            zipped,
            read_weights("rdian"),
        ),
        Seed(checkpoint(training), zipped, read_checkpoint),
    ]
