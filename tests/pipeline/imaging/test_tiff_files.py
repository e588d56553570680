"""TIFF files of any form give the samples that were written, from one page or from several."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from pipeline.imaging.image_files import read_samples
from pipeline.sources.opening import open_source
from pipeline.system.errors import SourceError, SourceLost
from tests.support.media import ORIENTATIONS

RANDOM = np.random.default_rng(0)
GREY8 = RANDOM.integers(0, 256, (37, 53), np.uint8)
GREY16 = RANDOM.integers(0, 65536, (37, 53)).astype(np.uint16)
RGB8 = RANDOM.integers(0, 256, (37, 53, 3), np.uint8)
RGB16 = RANDOM.integers(0, 65536, (37, 53, 3)).astype(np.uint16)
COLOURS = RANDOM.integers(0, 65536, (3, 256)).astype(np.uint16)


def pack(samples: np.ndarray, bits: int) -> bytes:
    """Samples (H, W) in `bits` each, rows padded to whole bytes."""
    digits = (samples[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(digits.reshape(len(samples), -1).astype(np.uint8), axis=1).tobytes()


def write_packed(path, samples: np.ndarray, bits: int, count: int) -> None:
    """A TIFF file of `count` equal pages whose samples are not whole bytes."""
    data, order = pack(samples, bits), "<"
    with path.open("wb") as file:
        file.write(b"II*\0" + (8).to_bytes(4, "little"))
        for number in range(count):
            start = file.tell()
            tags = {256: samples.shape[1], 257: samples.shape[0], 258: bits, 259: 1, 262: 1}
            tags |= {273: start + 2 + 12 * 9 + 4, 277: 1, 278: samples.shape[0], 279: len(data)}
            file.write(len(tags).to_bytes(2, "little"))
            for tag, value in tags.items():
                file.write(np.array([tag, 4], f"{order}u2").tobytes() + np.array([1, value], "<u4").tobytes())
            after = file.tell() + 4 + len(data)
            file.write((after if number + 1 < count else 0).to_bytes(4, "little") + data)


def images_of(path) -> list[np.ndarray]:
    with open_source(path) as source:
        return [frame.image for frame in source]


STORED = {
    "grey": (GREY8, GREY8, {}),
    "grey 16": (GREY16, GREY16, {}),
    "big endian": (GREY16, GREY16, {"byteorder": ">"}),
    "BigTIFF": (GREY16, GREY16, {"bigtiff": True}),
    "white is zero": (GREY8, 255 - GREY8, {"photometric": "miniswhite"}),
    "white is zero, 16": (GREY16, 65535 - GREY16, {"photometric": "miniswhite"}),
    "colour": (RGB8, RGB8, {"photometric": "rgb"}),
    "colour 16": (RGB16, RGB16, {"photometric": "rgb"}),
    "colour by planes": (
        RGB16.transpose(2, 0, 1).copy(),
        RGB16,
        {"photometric": "rgb", "planarconfig": "separate"},
    ),
    "alpha": (np.dstack([RGB8, GREY8]), RGB8, {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
    "palette": (
        GREY8,
        np.moveaxis((COLOURS >> 8).astype(np.uint8)[:, GREY8], 0, -1),
        {"photometric": "palette", "colormap": COLOURS},
    ),
    "bilevel": (GREY8 > 127, (GREY8 > 127) * np.uint8(255), {"photometric": "minisblack"}),
    "strips": (GREY16, GREY16, {"rowsperstrip": 5}),
    "tiles": (GREY16, GREY16, {"tile": (16, 32)}),
    "deflate": (GREY16, GREY16, {"compression": "zlib", "rowsperstrip": 7}),
}


@pytest.mark.parametrize("pages", [1, 3])
@pytest.mark.parametrize("name", STORED)
def test_one_page_and_several_give_the_same_samples(tmp_path, name, pages):
    stored, expected, options = STORED[name]
    with tifffile.TiffWriter(
        tmp_path / "a.tif",
        byteorder=options.get("byteorder"),
        bigtiff=options.get("bigtiff", False),
    ) as file:
        for _ in range(pages):
            page = {key: value for key, value in options.items() if key not in ("byteorder", "bigtiff")}
            file.write(stored, contiguous=False, metadata=None, **page)
    found = images_of(tmp_path / "a.tif")
    assert len(found) == pages
    for image in found:
        assert image.dtype == expected.dtype
        np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "tiff_deflate", "tiff_adobe_deflate"])
@pytest.mark.parametrize("image", [GREY8, GREY16, RGB8], ids=["8", "16", "colour"])
def test_compressed_pages_are_read(tmp_path, image, compression):
    pages = [Image.fromarray(image)] * 2
    pages[0].save(tmp_path / "1.tif", compression=compression)
    pages[0].save(tmp_path / "2.tif", compression=compression, save_all=True, append_images=pages[1:])
    for path, count in (("1.tif", 1), ("2.tif", 2)):
        np.testing.assert_array_equal(images_of(tmp_path / path), [image] * count)


@pytest.mark.parametrize("image", [GREY8, GREY16, RGB8, RGB16], ids=["8", "16", "colour", "colour 16"])
def test_lzw_with_differences_as_opencv_writes_it_is_read(tmp_path, image):
    stored = image if image.ndim == 2 else image[..., ::-1]
    cv2.imwrite(str(tmp_path / "a.tif"), stored, [cv2.IMWRITE_TIFF_COMPRESSION, 5])
    np.testing.assert_array_equal(images_of(tmp_path / "a.tif")[0], image)


@pytest.mark.parametrize("pages", [1, 2])
@pytest.mark.parametrize("bits", [9, 10, 12, 14])
def test_samples_between_bytes_keep_their_values_and_state_their_depth(tmp_path, bits, pages):
    samples = GREY16 >> (16 - bits)
    write_packed(tmp_path / "a.tif", samples, bits, pages)
    np.testing.assert_array_equal(images_of(tmp_path / "a.tif"), [samples] * pages)
    with open_source(tmp_path / "a.tif") as source:
        assert source.info.bit_depth == bits


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_fewer_than_eight_bits_fill_the_scale(tmp_path, bits):
    samples = GREY8 >> (8 - bits)
    write_packed(tmp_path / "a.tif", samples, bits, 1)
    np.testing.assert_array_equal(images_of(tmp_path / "a.tif")[0], samples * (255 // ((1 << bits) - 1)))


@pytest.mark.parametrize(("orientation", "displayed"), ORIENTATIONS.items())
@pytest.mark.parametrize("image", [GREY8, GREY16], ids=["8", "16"])
def test_the_orientation_is_applied(tmp_path, image, orientation, displayed):
    tifffile.imwrite(tmp_path / "a.tif", image, extratags=[(274, 3, 1, orientation, True)])
    np.testing.assert_array_equal(images_of(tmp_path / "a.tif")[0], displayed(image))


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_jpeg_pages_are_read_alike_from_one_page_and_several(tmp_path, mode):
    smooth = cv2.GaussianBlur(GREY8 if mode == "L" else RGB8, (0, 0), 3)
    pages = [Image.fromarray(smooth)] * 2
    pages[0].save(tmp_path / "1.tif", compression="jpeg", quality=95)
    pages[0].save(tmp_path / "2.tif", compression="jpeg", quality=95, save_all=True, append_images=pages[1:])
    one, two = images_of(tmp_path / "1.tif"), images_of(tmp_path / "2.tif")
    assert np.abs(one[0].astype(int) - smooth).max() <= 16
    np.testing.assert_array_equal(two, [one[0]] * 2)


def test_every_plane_of_an_imagej_stack_is_a_frame(tmp_path):
    planes = np.stack([GREY16 + n for n in range(6)])
    tifffile.imwrite(tmp_path / "a.tif", planes, imagej=True, truncate=True)
    np.testing.assert_array_equal(images_of(tmp_path / "a.tif"), planes)


def test_an_imagej_stack_without_its_last_plane_is_a_lost_source(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.stack([GREY16] * 6), imagej=True, truncate=True)
    data = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(data.replace(b"images=6", b"images=7"))
    with open_source(tmp_path / "a.tif") as source:
        assert source.info.frame_count == 7
        with pytest.raises(SourceLost, match=r"lost at frame 6: .*the file is cut off"):
            list(source)


@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.uint32])
def test_other_kinds_of_samples_are_refused(tmp_path, dtype):
    tifffile.imwrite(tmp_path / "a.tif", GREY16.astype(dtype))
    with pytest.raises(SourceError, match=f"holds {np.dtype(dtype)} pixels; only 8 and 16 bit integers"):
        open_source(tmp_path / "a.tif")


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "bits", "ranges"),
    [
        ("imagej_one_ifd_six_frames.tif", 16, [(1000 + n, 3500 + n) for n in range(6)]),
        ("tiff12_one_page.tif", 12, [(1000, 3500)]),
        ("tiff12_two_pages.tif", 12, [(1000, 3500), (1001, 3501)]),
        ("white_is_zero_16_one_page.tif", 16, [(1000, 3500)]),
        ("white_is_zero_16_two_pages.tif", 16, [(1000, 3500)] * 2),
        ("pgm_frames", 14, [(1000 + n, 3500 + n) for n in range(3)]),
    ],
)
def test_files_of_other_programs_give_their_levels(shared_root, name, bits, ranges):
    with open_source(shared_root / "cases" / name) as source:
        assert source.info.bit_depth == bits
        assert [(int(f.image.min()), int(f.image.max())) for f in source] == ranges


@pytest.mark.parametrize("maximum", [255, 1023, 16383, 65535])
def test_pgm_keeps_its_samples_and_states_its_depth(tmp_path, maximum):
    bits = maximum.bit_length()
    samples = GREY16 >> (16 - bits)
    dtype = ">u2" if maximum > 255 else "u1"
    for number in range(2):
        header = f"P5\n# made\n{samples.shape[1]} {samples.shape[0]}\n{maximum}\n".encode()
        (tmp_path / f"{number}.pgm").write_bytes(header + samples.astype(dtype).tobytes())
    np.testing.assert_array_equal(images_of(tmp_path), [samples] * 2)
    assert read_samples(tmp_path / "0.pgm")[1] == bits


def test_a_pgm_file_that_claims_too_many_pixels_is_refused(tmp_path):
    (tmp_path / "a.pgm").write_bytes(b"P5 100000 100000 255\n" + bytes(100))
    with pytest.raises(SourceError, match="frames of 100000x100000 are refused"):
        open_source(tmp_path / "a.pgm")
