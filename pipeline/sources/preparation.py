"""Preprocessing of each frame of a source: sensor correction and intensity scaling."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipeline.config.schema import SourceConfig
from pipeline.imaging.image_files import read_image
from pipeline.imaging.intensity_scaling import (
    DEEP_SCALING,
    MIN_FRACTION_IN_USE,
    FixedLevels,
    LevelsInUse,
    parse_scaling,
    resolve_scaling,
)
from pipeline.imaging.pixel_formats import convert_channels
from pipeline.imaging.sensor_correction import AUTO, OffsetCorrection, PixelReplacement, SpikeReplacement
from pipeline.structures.frame import Frame, SourceInfo
from pipeline.system.errors import SourceError, SourceLost, UsageError

log = logging.getLogger(__name__)
_remarked: set[str] = set()
"""Names of the sources whose narrow range was remarked on; a live source is opened many times."""


class SensorPreprocessing:
    """Applies, in this order, offset correction, bad-pixel replacement and intensity scaling.

    Steps that the configuration does not name are skipped. If the first frames use a small part of the scale,
    a warning names their levels and the option, once for each source.
    """

    def __init__(self, config: SourceConfig, info: SourceInfo, *, remark: bool = True):
        """Without `remark` there is no such warning.

        Raises UsageError if the file of a correction cannot be read or does not fit the frames."""
        self._name = info.name
        self._scaling = parse_scaling(config.scaling, info.bit_depth)
        self._scaling_name = resolve_scaling(config.scaling, info.bit_depth)
        # percentiles that were chosen by name need no remark
        chosen = config.scaling.startswith(("percentile", "running")) or info.name in _remarked or not remark
        self._in_use = None if chosen else LevelsInUse()
        self._corrections: list[Callable[[np.ndarray], np.ndarray]] = []
        if (config.offset or config.bad_pixels) and info.channels != 1:
            raise UsageError(f"{info.name} has colours; --bad-pixels and --offset are for grey sources")
        if config.offset:
            reference = _reference(config.offset, "offset", info)
            self._corrections.append(OffsetCorrection(reference, info.bit_depth))
        if config.bad_pixels == AUTO:
            self._corrections.append(SpikeReplacement())
        elif config.bad_pixels:
            mask = _reference(config.bad_pixels, "bad-pixels", info)
            self._corrections.append(PixelReplacement(mask > mask.max() / 2, config.bad_pixels))
        self._declared_bits = config.bits
        peak = float((1 << info.bit_depth) - 1)
        fixed = self._scaling(np.zeros((1, 1), np.uint8)) if isinstance(self._scaling, FixedLevels) else None
        self._scale = fixed or (0.0, peak)

    def __call__(self, frame: Frame) -> Frame:
        """Returns the corrected frame with its levels.

        Raises SourceLost if samples exceed the declared bits.
        """
        image = frame.image
        if self._declared_bits and (peak := int(image.max())) >> frame.bit_depth:
            raise SourceLost(
                f"{frame.source}: frame {frame.index} holds {peak}, more than {frame.bit_depth} bits can; "
                "give --source-bits"
            )
        for correct in self._corrections:
            image = correct(image)
        levels = self._scaling(image)
        if self._in_use is not None and self._in_use.add(image):
            self.finish()
        if image is frame.image and levels is None:
            return frame
        return replace(frame, image=image, levels=levels)

    def finish(self) -> None:
        """Warns if the frames so far use a small part of the scale; further calls do nothing."""
        in_use, self._in_use = self._in_use, None
        if in_use is None or self._name in _remarked:
            return
        low, high = self._scale
        if in_use.fraction(low, high) >= MIN_FRACTION_IN_USE:
            return
        _remarked.add(self._name)
        used = f"its frames use grey levels {in_use.low:.0f} to {in_use.high:.0f} of {low:.0f} to {high:.0f}"
        if self._scaling_name == DEEP_SCALING:
            text = f"networks read them by --scaling {DEEP_SCALING}, the default for more than 8 bits"
        else:
            text = "targets may be too faint for the networks; try --scaling percentile"
        log.warning("%s: %s; %s", self._name, used, text)


def _reference(path: str, key: str, info: SourceInfo) -> np.ndarray:
    """Reads the image that a correction names: (H, W) grey, of the size of the frames."""
    try:
        image = convert_channels(read_image(Path(path)), grey=True)
    except SourceError as error:  # of an option, not of the source
        raise UsageError(f"--{key}: {error}") from error
    if image.shape != (info.height, info.width):
        size = f"{image.shape[1]}x{image.shape[0]}"
        raise UsageError(
            f"--{key} {path} is {size}, the frames of {info.name} are {info.width}x{info.height}"
        )
    if key == "offset" and (image.itemsize > 1) != (info.bit_depth > 8):
        depth = f"{8 * image.itemsize} bits"
        raise UsageError(f"--offset {path} has {depth}, the frames of {info.name} {info.bit_depth}")
    return image
