"""pipeline.sources.preparation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from pipeline.config.schema import SourceConfig
from pipeline.imaging.image_files import read_image
from pipeline.imaging.intensity_scaling import parse_scaling
from pipeline.imaging.pixel_formats import with_channels
from pipeline.imaging.sensor_correction import AUTO, OffsetCorrection, PixelReplacement, SpikeReplacement
from pipeline.structures.frame import Frame, SourceInfo
from pipeline.system.errors import SourceLost, UsageError


class SensorPreprocessing:
    """All that is done to each frame of a source, in order: offset, bad pixels, levels."""

    def __init__(self, config: SourceConfig, info: SourceInfo):
        """Raises UsageError for corrections that do not fit the frames, SourceError for unreadable ones."""
        self._scaling = parse_scaling(config.scaling)
        self._stages = []
        if (config.offset or config.bad_pixels) and info.channels != 1:
            raise UsageError(f"{info.name} has colours; bad_pixels and offset are for grey sources")
        if config.offset:
            self._stages.append(OffsetCorrection(_reference(config.offset, "offset", info), info.bit_depth))
        if config.bad_pixels == AUTO:
            self._stages.append(SpikeReplacement())
        elif config.bad_pixels:
            mask = _reference(config.bad_pixels, "bad_pixels", info)
            self._stages.append(PixelReplacement(mask > mask.max() / 2, config.bad_pixels))
        self._declared = config.bits

    def __call__(self, frame: Frame) -> Frame:
        """The frame, corrected and with its levels; SourceLost for samples beyond the declared bits."""
        image = frame.image
        if self._declared and (peak := int(image.max())) >> frame.bit_depth:
            raise SourceLost(
                f"{frame.source}: frame {frame.index} holds {peak}, more than {frame.bit_depth} bits can; "
                "set source.bits"
            )
        for stage in self._stages:
            image = stage(image)
        levels = self._scaling(image)
        if image is frame.image and levels is None:
            return frame
        return replace(frame, image=image, levels=levels)


def _reference(path: str, key: str, info: SourceInfo) -> np.ndarray:
    """The picture that a correction names, grey and of the size of the frames."""
    picture = with_channels(read_image(Path(path)), grey=True)
    if picture.shape != (info.height, info.width):
        size = f"{picture.shape[1]}x{picture.shape[0]}"
        raise UsageError(
            f"{key} = {path} is {size}, the frames of {info.name} are {info.width}x{info.height}"
        )
    if key == "offset" and (picture.itemsize > 1) != (info.bit_depth > 8):
        depth = f"{8 * picture.itemsize} bits"
        raise UsageError(f"offset = {path} has {depth}, the frames of {info.name} {info.bit_depth}")
    return picture
