"""A detector of mmdet for the tests: YOLOX-tiny of mmdet, with weights that predict some boxes."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch

CLASSES = tuple(f"kind {number}" for number in range(80))


class Case(NamedTuple):
    """Paths of a configuration of mmdet and of weights for it."""

    config: Path
    weights: Path


def shipped(name: str) -> Path:
    """Returns the path of a configuration in the package of mmdet."""
    return Path(find_spec("mmdet").submodule_search_locations[0], ".mim", "configs", name)


def yolox(folder: Path) -> Case:
    """Writes random weights with which some cells predict objects, all of class 3."""
    from detectors.mmdet_adapter import configuration, installation

    installation.prepare()
    from mmdet.registry import MODELS

    config = shipped("yolox/yolox_tiny_8xb8-300e_coco.py")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MODELS.build(configuration.read(config).model)
        _calibrate(model, torch.rand(2, 3, 128, 128) * 255)
    head = model.bbox_head
    levels = zip(head.multi_level_conv_reg, head.multi_level_conv_obj, head.multi_level_conv_cls, strict=True)
    for boxes, objectness, classes in levels:
        boxes.weight.data *= 0.02
        objectness.weight.data *= 0.1
        torch.nn.init.constant_(objectness.bias, -2.0)
        torch.nn.init.zeros_(classes.weight)
        classes.bias.data = torch.where(torch.arange(80) == 3, 2.0, -6.0)
    path = folder / "yolox.pth"
    meta = {"dataset_meta": {"classes": CLASSES}, "epoch": 1}
    torch.save({"meta": meta, "state_dict": model.state_dict()}, path)
    return Case(config, path)


def _calibrate(model: torch.nn.Module, pictures: torch.Tensor) -> None:
    """Sets the running statistics of batch norm to those of random images, so that outputs stay moderate."""
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for module in norms:
        module.momentum = 1.0
    with torch.no_grad():
        model.train()(pictures, mode="tensor")
