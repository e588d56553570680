"""A folder of images is one sequence."""

from __future__ import annotations

import re
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from pipeline.imaging.image_files import natural_order, read_image
from pipeline.imaging.image_headers import tiff_pages
from pipeline.sources.opening import open_source
from pipeline.system.errors import SourceError
from tests.support.media import grey_frames, open_files, read_until_lost


def write_images(folder: Path, images: dict[str, np.ndarray]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, image in images.items():
        assert cv2.imwrite(str(folder / name), image)
    return folder


@pytest.mark.parametrize("suffix", ["png", "tif", "tiff", "bmp"])
def test_a_folder_is_one_sequence_in_natural_order(tmp_path, suffix):
    images = grey_frames(12)
    named = {f"{index}.{suffix}": image for index, image in enumerate(images)}
    folder = write_images(tmp_path / "images", named)
    (folder / "notes.txt").write_text("no image")
    (folder / f"._0.{suffix}").write_bytes(b"left by a file system")
    for location in (folder, folder / f"*.{suffix}"):
        with open_source(location, rate=Fraction(25, 2)) as source:
            info, frames = source.info, list(source)
        assert (info.frame_count, info.rate, info.bit_depth, info.channels) == (12, Fraction(25, 2), 8, 1)
        assert [frame.index for frame in frames] == list(range(12))
        assert [frame.pts for frame in frames] == [Fraction(2 * index, 25) for index in range(12)]
        assert all(np.array_equal(frame.image, image) for frame, image in zip(frames, images, strict=True))


def test_jpeg_images_are_read_at_thirty_a_second(tmp_path):
    folder = write_images(tmp_path / "images", {"a.jpg": grey_frames(1)[0], "b.JPG": grey_frames(1)[0]})
    with open_source(folder) as source:
        assert [frame.pts for frame in source] == [0, Fraction(1, 30)]
        assert source.info.channels == 1


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_images_keep_every_bit(tmp_path, suffix):
    ramp = np.arange(1 << 16, dtype=np.uint16).reshape(256, 256)
    with open_source(write_images(tmp_path / "images", {f"a.{suffix}": ramp})) as source:
        frame = next(source)
        assert (source.info.bit_depth, frame.bit_depth) == (16, 16)
    np.testing.assert_array_equal(frame.image, ramp)


def test_grey_images_stored_as_colour_give_one_channel_and_colour_comes_as_rgb(tmp_path):
    grey = grey_frames(1)[0]
    colour = np.zeros((64, 96, 3), np.uint8)
    colour[...] = (30, 60, 200)  # B, G, R as OpenCV writes it
    stored = write_images(tmp_path / "grey", {"a.png": np.dstack([grey] * 3), "b.png": np.dstack([grey] * 4)})
    with open_source(stored) as source:
        assert all(np.array_equal(frame.image, grey) for frame in source)
    with open_source(write_images(tmp_path / "colour", {"a.png": colour, "b.png": grey})) as source:
        first, second = source
    assert first.image[0, 0].tolist() == [200, 60, 30]
    np.testing.assert_array_equal(second.image, np.dstack([grey] * 3))


def test_a_single_image_is_a_source_of_one_frame(tmp_path):
    folder = write_images(tmp_path, {"a.png": grey_frames(1)[0]})
    with open_source(folder / "a.png") as source:
        assert source.info.frame_count == len(list(source)) == 1


def test_start_and_max_frames_select_images(tmp_path):
    images = {f"{index}.png": image for index, image in enumerate(grey_frames(8))}
    with open_source(write_images(tmp_path / "images", images), start=5, max_frames=2) as source:
        assert source.info.frame_count == 2
        assert [(frame.index, frame.pts) for frame in source] == [(5, Fraction(5, 30)), (6, Fraction(6, 30))]


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(SourceError, match=r"holds no images \(\.png"):
        open_source(tmp_path)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (None, "lost at frame 2: .*2.png cannot be decoded"),
        (np.zeros((32, 32), np.uint8), "changes from 96x64 at 8 bits to 32x32 at 8 bits at frame 2"),
        (np.zeros((64, 96), np.uint16), "changes from 96x64 at 8 bits to 96x64 at 16 bits at frame 2"),
    ],
    ids=["damaged", "other size", "other depth"],
)
def test_a_bad_image_ends_the_sequence_after_the_frames_before(tmp_path, image, message):
    folder = write_images(tmp_path / "images", {f"{i}.png": grey for i, grey in enumerate(grey_frames(4))})
    if image is None:
        data = (folder / "2.png").read_bytes()
        (folder / "2.png").write_bytes(data[: len(data) // 2])
    else:
        write_images(folder, {"2.png": image})
    frames, lost = read_until_lost(folder)
    assert [frame.index for frame in frames] == [0, 1]
    assert re.search(message, lost)


def test_float_images_are_refused(tmp_path):
    folder = write_images(tmp_path / "images", {"a.tiff": np.zeros((8, 8), np.float32)})
    with pytest.raises(SourceError, match="float32 pixels; only 8 and 16 bit"):
        open_source(folder)


def write_pages(path: Path, images: list[np.ndarray], **options) -> Path:
    first, *others = map(Image.fromarray, images)
    first.save(path, save_all=True, append_images=others, **options)
    return path


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate"])
def test_the_pages_of_a_tiff_file_are_its_frames(tmp_path, depth, compression):
    images = [image.astype(f"uint{depth}") * (1 if depth == 8 else 251) for image in grey_frames(7)]
    path = write_pages(tmp_path / "a.tif", images, compression=compression)
    with open_source(path, start=2, max_frames=4, rate=5) as source:
        info, frames = source.info, list(source)
    assert (info.width, info.height, info.bit_depth, info.frame_count) == (96, 64, depth, 4)
    assert [(frame.index, frame.pts) for frame in frames] == [(n, Fraction(n, 5)) for n in (2, 3, 4, 5)]
    np.testing.assert_array_equal([frame.image for frame in frames], images[2:6])


def test_pages_of_several_files_and_single_images_make_one_sequence(tmp_path):
    images = grey_frames(9)
    write_pages(tmp_path / "1.tif", images[:3])
    write_images(tmp_path, {"2.png": images[3], "3.tiff": images[4]})
    write_pages(tmp_path / "10.tiff", images[5:], big_tiff=True)
    before = open_files()
    with open_source(tmp_path) as source:
        np.testing.assert_array_equal([frame.image for frame in source], images)
    assert open_files() == before


def test_a_damaged_page_ends_the_sequence(tmp_path):
    path = write_pages(tmp_path / "a.tif", grey_frames(4), compression="tiff_lzw")
    with Image.open(path) as stack:
        stack.seek(2)
        offset, size = stack.tag_v2[273][0], stack.tag_v2[279][0]
    data = bytearray(path.read_bytes())
    data[offset : offset + size] = b"\xff" * size
    path.write_bytes(data)
    frames, lost = read_until_lost(path)
    assert len(frames) == 2
    assert "lost at frame 2: a.tif, page 3 cannot be decoded" in lost


def test_a_cyclic_chain_of_pages_ends(tmp_path):
    path = write_pages(tmp_path / "a.tif", grey_frames(3))
    data = bytearray(path.read_bytes())
    with path.open("rb") as file:
        assert len(tiff_pages(file)) == 3
    first = int.from_bytes(data[4:8], "little")
    entries = int.from_bytes(data[first : first + 2], "little")
    link = first + 2 + 12 * entries
    data[link : link + 4] = data[4:8]
    path.write_bytes(data)
    with open_source(path) as source:
        assert source.info.frame_count == 1


def test_natural_order_compares_numbers_by_value():
    names = ["b2.png", "a10.png", "a2.png", "A1.png", "a02.png", "7.png"]
    ordered = sorted((Path(name) for name in names), key=natural_order)
    assert [path.name for path in ordered] == ["7.png", "A1.png", "a02.png", "a2.png", "a10.png", "b2.png"]


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_opencv_logs_nothing_about_a_damaged_image(tmp_path, capfd, suffix):
    path = tmp_path / f"image{suffix}"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8))
    path.write_bytes(path.read_bytes()[:200])
    capfd.readouterr()
    with suppress(SourceError):  # a truncated image may also be decoded in part
        read_image(path)
    assert ".cpp" not in capfd.readouterr().err  # OpenCV names its source file in its log
    assert cv2.utils.logging.getLogLevel() > cv2.utils.logging.LOG_LEVEL_SILENT


def test_metadata_of_a_png_file_reaches_neither_pixels_nor_terminal(tmp_path, capfd):
    image = grey_frames(1)[0]
    profile = b"\x1b[31m\0\0" + zlib.compress(bytes(200))  # its name would be printed as it is
    added = [(b"iCCP", profile), (b"sBIT", b"\5\5"), (b"zTXt", b"a"), (b"tRNS", b"\0\3")]
    chunks = [struct.pack(">I", len(data)) + kind + data for kind, data in added]
    chunks = [chunk + struct.pack(">I", zlib.crc32(chunk[4:])) for chunk in chunks]
    plain = cv2.imencode(".png", image)[1].tobytes()
    (tmp_path / "a.png").write_bytes(plain[:33] + b"".join(chunks) + plain[33:])  # behind the first chunk
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), image)
    assert capfd.readouterr() == ("", "")


def test_a_pgm_file_of_text_may_end_with_its_last_number(tmp_path):
    (tmp_path / "a.pgm").write_bytes(b"P2 2 1 255\n7 250")
    np.testing.assert_array_equal(read_image(tmp_path / "a.pgm"), [[7, 250]])


def test_images_that_are_read_in_several_threads_leave_the_log_of_opencv_on(tmp_path):
    path = tmp_path / "image.png"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (256, 256), np.uint8))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: read_image(path), range(400)))
    assert cv2.utils.logging.getLogLevel() > cv2.utils.logging.LOG_LEVEL_SILENT


def test_a_picture_in_several_formats_is_one_frame(tmp_path, caplog):
    shown = grey_frames(3)
    images = {f"{n}.{suffix}": shown[n] for n in range(3) for suffix in ("jpg", "png")}
    with open_source(write_images(tmp_path / "clip", images)) as source:
        assert [path.rpartition("/")[2] for path in source.pictures] == ["0.png", "1.png", "2.png"]
        assert source.info.frame_count == 3
    assert "3 images have the name of another one in a better format" in caplog.messages[0]
    with open_source(tmp_path / "clip" / "*.jpg") as source:
        assert source.info.frame_count == 3
