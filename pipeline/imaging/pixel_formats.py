"""Conversion of decoded frames to arrays: grey or RGB, bit depth, range and orientation.

Whether a source is grey is determined from its first frame and holds for all of it, so that a spot of colour
never changes the shape of the frames: grey if 99.9 % of the pixels are within 2 levels (of 256) of neutral.
"""

from __future__ import annotations

import functools

import av
import cv2
import numpy as np
from av.sidedata.sidedata import Type

MIN_NEUTRAL_FRACTION = 0.999
CHROMA_TOLERANCE = (
    2  # levels of 256: H.264 leaves the chroma of clips that are really grey up to 2 levels off
)
FULL_RANGE = 2  # AVCOL_RANGE_JPEG


def is_grey(image: np.ndarray) -> bool:
    """Returns whether an image is (H, W), or (H, W, 3) with channels equal within the tolerance."""
    if image.ndim == 2:
        return True
    tolerance = CHROMA_TOLERANCE << (8 * image.itemsize - 8)
    spread = image.max(axis=2) - image.min(axis=2)
    return bool((spread <= tolerance).mean() > MIN_NEUTRAL_FRACTION)


def convert_channels(image: np.ndarray, *, grey: bool) -> np.ndarray:
    """Converts an image (H, W) or (H, W, 3) RGB to (H, W) if `grey`, and to (H, W, 3) otherwise.

    The dtype is kept. Equal channels give exactly their value.
    """
    if grey:
        return image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return image if image.ndim == 3 else cv2.merge([image] * 3)


class FrameConverter:
    """Converts the decoded frames of one video stream to arrays of the form that its first frame determines.

    Pixel formats whose luma has a plane to itself (grey and planar YUV) keep their bit depth if the source is
    grey: grey formats sample for sample, YUV with the luma stretched from limited range (16 to 235 of 256) to
    full scale unless the stream declares full range. All other formats become 8-bit RGB.
    """

    def __init__(self, first: av.VideoFrame):
        pixel_format = first.format
        bits = pixel_format.components[0].bits
        planar = _has_luma_plane(pixel_format)
        self.grey: bool = _chroma_is_neutral(first) if planar else is_grey(_rgb(first))
        """True if frames become (H, W), False if they become (H, W, 3)."""
        self._planar = planar and self.grey
        self.bit_depth: int = bits if self._planar else 8
        """Significant bits per sample, 8 to 16."""
        self._orientation = _orientation(first)
        transposed = self._orientation[0]
        self.width: int = first.height if transposed else first.width
        """Pixels, as displayed."""
        self.height: int = first.width if transposed else first.height
        """Pixels, as displayed."""
        self._key = (first.width, first.height, pixel_format.name)
        full = pixel_format.name.startswith(("gray", "yuvj")) or first.color_range == FULL_RANGE
        self._stretch = _range_table(bits) if self._planar and not full else None

    def describe_change(self, frame: av.VideoFrame, *, allow_resize: bool = False) -> str | None:
        """Describes how `frame` differs from the first one in size or pixel format; None if it does not.

        With `allow_resize`, the size is not compared.
        """
        width, height, name = self._key
        if (frame.width, frame.height) != (width, height) and not allow_resize:
            return f"frame size changes from {width}x{height} to {frame.width}x{frame.height}"
        if frame.format.name != name:
            return f"pixel format changes from {name} to {frame.format.name}"
        return None

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        """Converts a frame of the same pixel format to a new array (H, W) or (H, W, 3), uint8 or uint16."""
        if self._planar:
            luma = _plane(frame, 0)
            if self._stretch is None:
                image = luma.astype(luma.dtype.newbyteorder("="))
            elif luma.itemsize == 1:
                image = cv2.LUT(luma, self._stretch)  # twice as fast as indexing
            else:
                image = self._stretch[luma]
        else:
            image = convert_channels(_rgb(frame), grey=self.grey)
        return _oriented(image, self._orientation)


def _has_luma_plane(pixel_format: av.VideoFormat) -> bool:
    """Returns whether plane 0 is luma alone, in the low bits of 1 or 2 bytes: not packed, P010 or float."""
    first, *others = pixel_format.components
    return (
        pixel_format.name.startswith(("gray", "yuv", "nv1", "nv2"))
        and 8 <= first.bits <= 16
        and all(component.plane != first.plane for component in others)
    )


def _plane(frame: av.VideoFrame, number: int, samples: int = 1) -> np.ndarray:
    """Returns a view of a plane: (H, W * samples), uint8, or uint16 of either byte order.

    It is valid as long as the frame.
    """
    plane = frame.planes[number]
    order = ">" if frame.format.is_big_endian else "<"
    dtype = np.dtype("u1" if frame.format.components[0].bits == 8 else f"{order}u2")
    rows = np.frombuffer(memoryview(plane), dtype).reshape(
        plane.height, abs(plane.line_size) // dtype.itemsize
    )
    upright = rows[::-1] if plane.line_size < 0 else rows
    return upright[:, : plane.width * samples]


def _chroma_is_neutral(frame: av.VideoFrame) -> bool:
    chroma = {part.plane for part in frame.format.components if part.is_chroma}
    if not chroma:
        return True
    bits = frame.format.components[0].bits
    samples = 2 if len(chroma) == 1 else 1  # NV12 and similar formats interleave both in one plane
    neutral, tolerance = 1 << (bits - 1), CHROMA_TOLERANCE << (bits - 8)
    planes = [_plane(frame, number, samples).astype(np.int32) for number in chroma]
    return min((np.abs(plane - neutral) <= tolerance).mean() for plane in planes) > MIN_NEUTRAL_FRACTION


def _rgb(frame: av.VideoFrame) -> np.ndarray:
    return frame.to_ndarray(format="rgb24")


@functools.cache
def _range_table(bits: int) -> np.ndarray:
    """Returns the full-scale value of each limited-range luma value: (2**bits,) uint8 or uint16.

    For 8 bits it equals FFmpeg's scaler, whose results could change with its version or the processor.
    """
    low, high, peak = 16 << (bits - 8), 235 << (bits - 8), (1 << bits) - 1
    scaled = np.rint((np.arange(1 << bits) - low) * (peak / (high - low)))
    return np.clip(scaled, 0, peak).astype(np.uint8 if bits == 8 else np.uint16)


def _orientation(frame: av.VideoFrame) -> tuple[bool, bool, bool]:
    """Returns how to display the frame: whether to swap its axes, then mirror in x, then mirror in y.

    Read from the display matrix, because `frame.rotation` reports a mirrored frame as one turned by 180
    degrees.
    """
    _name_unknown_side_data()
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return False, False, False
    # (x', y') = (a x + c y, b x + d y)
    matrix = np.frombuffer(data, np.int32)  # type: ignore[call-overload]  # PyAV's stub knows no such entry
    a, b, _, c, d = matrix[:5].tolist()
    swap = abs(b) + abs(c) > abs(a) + abs(d)
    return (swap, c < 0, b < 0) if swap else (swap, a < 0, d < 0)


def _name_unknown_side_data() -> None:
    """Makes PyAV accept side data of kinds that it has no name for.

    `Type` lists the kinds that PyAV knows. FFmpeg adds new ones, such as EXIF, with which PyAV 18.1 raises
    ValueError for all side data of a frame.
    """
    if "_missing_" not in vars(Type):
        setattr(Type, "_missing_", classmethod(_unnamed_type))  # noqa: B010 - a hook of `enum`


def _unnamed_type(cls: type[Type], value: object) -> Type:
    """Returns a new member of `Type` for a kind of side data without a name."""
    member = object.__new__(cls)
    member._name_ = f"UNNAMED_{value}"
    setattr(member, "_value_", value)  # noqa: B010 - typed as the values of the known members
    return member


def _oriented(image: np.ndarray, orientation: tuple[bool, bool, bool]) -> np.ndarray:
    swap, mirror_x, mirror_y = orientation
    if not any(orientation):
        return image
    image = image.swapaxes(0, 1) if swap else image
    return np.ascontiguousarray(image[:: -1 if mirror_y else 1, :: -1 if mirror_x else 1])
