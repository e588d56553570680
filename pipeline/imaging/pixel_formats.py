"""From what decoders give to the pixels of a frame: grey or colour, bit depth, range, orientation.

Grey or colour is settled on the first picture and holds for the whole source, so that a spot of colour never
changes the shape of the frames: grey if 99.9 % of its pixels are within 2 levels (of 256) of neutral.
"""

from __future__ import annotations

import functools

import av
import cv2
import numpy as np

NEUTRAL_SHARE = 0.999
NEUTRAL_LEVELS = 2  # of 256: H.264 leaves chroma of real grey clips up to 2 levels off
FULL_RANGE = 2  # AVCOL_RANGE_JPEG


def image_is_grey(image: np.ndarray) -> bool:
    """True for (H, W), and for (H, W, 3) whose channels are equal within the tolerance."""
    if image.ndim == 2:
        return True
    tolerance = NEUTRAL_LEVELS << (8 * image.itemsize - 8)
    spread = image.max(axis=2) - image.min(axis=2)
    return bool((spread <= tolerance).mean() > NEUTRAL_SHARE)


def with_channels(image: np.ndarray, *, grey: bool) -> np.ndarray:
    """The (H, W) or (H, W, 3) R, G, B image as (H, W) if `grey`, else as (H, W, 3); same dtype.

    Equal channels give exactly their value.
    """
    if grey:
        return image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return image if image.ndim == 3 else cv2.merge([image] * 3)


class PictureConverter:
    """Turns the decoded pictures of one video stream into arrays, in the way its first picture settled.

    Pixel formats with the luma in a plane of its own (grey and planar YUV) keep their bit depth when grey:
    grey formats sample for sample; luma of YUV stretched from limited range (16 to 235 of 256) to full scale
    unless the stream says full range. All else becomes 8-bit R, G, B.
    """

    def __init__(self, first: av.VideoFrame):
        pixel_format = first.format
        bits = pixel_format.components[0].bits
        planar = _has_luma_plane(pixel_format)
        self.grey: bool = _chroma_is_neutral(first) if planar else image_is_grey(_rgb(first))
        """True where pictures become (H, W)."""
        self._planar = planar and self.grey
        self.bit_depth: int = bits if self._planar else 8
        """Significant bits per sample, 8 to 16."""
        self._turn = _orientation(first)
        turned = self._turn[0]
        self.width: int = first.height if turned else first.width
        """Pixels, as displayed."""
        self.height: int = first.width if turned else first.height
        """Pixels, as displayed."""
        self._key = (first.width, first.height, pixel_format.name)
        full = pixel_format.name.startswith(("gray", "yuvj")) or first.color_range == FULL_RANGE
        self._stretch = None if full else _range_table(bits)

    def difference(self, picture: av.VideoFrame, *, any_size: bool = False) -> str | None:
        """How `picture` differs from the first in size or pixel format, in words; None if it does not.

        With `any_size` another size is no difference.
        """
        width, height, name = self._key
        if (picture.width, picture.height) != (width, height) and not any_size:
            return f"frame size changes from {width}x{height} to {picture.width}x{picture.height}"
        if picture.format.name != name:
            return f"pixel format changes from {name} to {picture.format.name}"
        return None

    def __call__(self, picture: av.VideoFrame) -> np.ndarray:
        """A picture of that pixel format as a new array: (H, W) or (H, W, 3) R, G, B; uint8 or uint16."""
        if self._planar:
            luma = _plane(picture, 0)
            if self._stretch is None:
                image = luma.astype(luma.dtype.newbyteorder("="))
            elif luma.itemsize == 1:
                image = cv2.LUT(luma, self._stretch)  # twice as fast as indexing
            else:
                image = self._stretch[luma]
        else:
            image = with_channels(_rgb(picture), grey=self.grey)
        return _oriented(image, self._turn)


def _has_luma_plane(pixel_format: av.VideoFormat) -> bool:
    """Whether plane 0 is all luma, in the low bits of 1 or 2 bytes: leaves out packed, P010 and float."""
    first, *others = pixel_format.components
    return (
        pixel_format.name.startswith(("gray", "yuv", "nv1", "nv2"))
        and 8 <= first.bits <= 16
        and all(component.plane != first.plane for component in others)
    )


def _plane(picture: av.VideoFrame, number: int, samples: int = 1) -> np.ndarray:
    """View of a plane as (H, W * samples), valid as long as the picture; uint8, or uint16 of any order."""
    plane = picture.planes[number]
    order = ">" if picture.format.is_big_endian else "<"
    dtype = np.dtype("u1" if picture.format.components[0].bits == 8 else f"{order}u2")
    rows = np.frombuffer(plane, dtype).reshape(plane.height, abs(plane.line_size) // dtype.itemsize)
    upright = rows[::-1] if plane.line_size < 0 else rows
    return upright[:, : plane.width * samples]


def _chroma_is_neutral(picture: av.VideoFrame) -> bool:
    chroma = {part.plane for part in picture.format.components if part.is_chroma}
    if not chroma:
        return True
    bits = picture.format.components[0].bits
    samples = 2 if len(chroma) == 1 else 1  # NV12 and its like interleave both in one plane
    neutral, tolerance = 1 << (bits - 1), NEUTRAL_LEVELS << (bits - 8)
    planes = [_plane(picture, number, samples).astype(np.int32) for number in chroma]
    return min((np.abs(plane - neutral) <= tolerance).mean() for plane in planes) > NEUTRAL_SHARE


def _rgb(picture: av.VideoFrame) -> np.ndarray:
    return picture.to_ndarray(format="rgb24")


@functools.cache
def _range_table(bits: int) -> np.ndarray:
    """Full-scale value of each limited-range luma value, (2**bits,) uint8 or uint16.

    For 8 bits equal to what FFmpeg's scaler gives; here it cannot change with its version or the processor.
    """
    low, high, peak = 16 << (bits - 8), 235 << (bits - 8), (1 << bits) - 1
    scaled = np.rint((np.arange(1 << bits) - low) * (peak / (high - low)))
    return np.clip(scaled, 0, peak).astype(np.uint8 if bits == 8 else np.uint16)


def _orientation(picture: av.VideoFrame) -> tuple[bool, bool, bool]:
    """How to display the picture: whether to swap its axes, then mirror in x, then mirror in y.

    Read from the display matrix itself: `picture.rotation` takes a mirrored picture for one turned by 180
    degrees.
    """
    data = picture.side_data.get("DISPLAYMATRIX")
    if data is None:
        return False, False, False
    # (x', y') = (a x + c y, b x + d y)
    a, b, _, c, d = np.frombuffer(data, np.int32)[:5].tolist()
    swap = abs(b) + abs(c) > abs(a) + abs(d)
    return (swap, c < 0, b < 0) if swap else (swap, a < 0, d < 0)


def _oriented(image: np.ndarray, turn: tuple[bool, bool, bool]) -> np.ndarray:
    swap, mirror_x, mirror_y = turn
    if not any(turn):
        return image
    image = image.swapaxes(0, 1) if swap else image
    return np.ascontiguousarray(image[:: -1 if mirror_y else 1, :: -1 if mirror_x else 1])
