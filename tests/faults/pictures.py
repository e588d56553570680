"""Fuzz targets of image files of many forms, as a source and as masks, with their readers."""

from __future__ import annotations

import contextlib
import io
import json
import re
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import tifffile
from PIL import ExifTags, Image, ImageCms, PngImagePlugin

from tests.faults.binaries import frames_of
from tests.faults.mutants import COUNT, SIZE, Seed, made, whole
from tests.support.media import grey_frames

GREY = grey_frames(1, *SIZE[::-1])[0]
GREY16 = GREY * np.uint16(257)
COLOUR = cv2.merge([GREY, GREY[::-1], GREY])


def folder_of(files: dict[str, bytes], folder: Path) -> Path:
    """Writes images; returns their folder."""
    whole(files, folder)
    return folder


def encoded(suffix: str, image: np.ndarray, *options: int) -> bytes:
    """Encodes an image (H, W) or (H, W, 3) by OpenCV."""
    return cv2.imencode(suffix, image, options)[1].tobytes()


def saved(image: Image.Image, format: str, **options) -> bytes:
    """Encodes an image by Pillow."""
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


# PNG


def as_png(files: dict[str, bytes], folder: Path) -> Path:
    """Writes chunks as a PNG image with correct checksums."""
    data = b"\x89PNG\r\n\x1a\n"
    for name, part in files.items():
        kind = name.partition(" ")[2].encode()
        data += struct.pack(">I", len(part)) + kind + part + struct.pack(">I", zlib.crc32(kind + part))
    (folder / "a.png").write_bytes(data)
    return folder


def png_chunks(data: bytes) -> dict[str, bytes]:
    """Returns the contents of the chunks of a PNG image by number and type."""
    found, place = {}, 8
    while place < len(data):
        (length,) = struct.unpack_from(">I", data, place)
        kind = data[place + 4 : place + 8].decode()
        found[f"{len(found)} {kind}"] = data[place + 8 : place + 8 + length]
        place += 12 + length
    return found


def ancillary_pngs() -> list[bytes]:
    """Returns PNG images with transparency, palette, EXIF, a colour profile and texts."""
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Comment", "a", zip=True)
    texts.add_itxt("Title", "é", lang="fr", tkey="Titre")
    texts.add(b"gAMA", struct.pack(">I", 45455))
    texts.add(b"sBIT", b"\5")
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    grey = Image.fromarray(GREY)
    common = {"pnginfo": texts, "exif": orientation(6), "icc_profile": profile, "dpi": (72, 72)}
    return [
        saved(grey, "PNG", transparency=3, **common),
        saved(grey.convert("P", palette=Image.Palette.ADAPTIVE), "PNG", transparency=b"\0\x80", **common),
        saved(Image.fromarray(np.dstack([COLOUR, GREY])), "PNG", **common),
        saved(grey.convert("1"), "PNG", bits=1),
    ]


# JPEG


def orientation(value: int) -> Image.Exif:
    """Returns EXIF data with an orientation."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = value
    exif[ExifTags.Base.Make] = "a"
    return exif


def as_jpeg(files: dict[str, bytes], folder: Path) -> Path:
    """Writes segments as a JPEG image with correct lengths."""
    (folder / "a.jpg").write_bytes(b"".join(joined(name, part) for name, part in files.items()))
    return folder


def joined(name: str, part: bytes) -> bytes:
    """Returns the bytes of a segment called by number and marker, or of data between segments."""
    kind = name.partition(" ")[2]
    if kind == "data":
        return part
    marker = b"\xff" + bytes.fromhex(kind)
    bare = kind == "d8" or kind == "d9" or "d0" <= kind <= "d7"
    return marker + part if bare else marker + struct.pack(">H", (len(part) + 2) % 65536) + part


def jpeg_segments(data: bytes) -> dict[str, bytes]:
    """Returns the contents of the segments of a JPEG image, and its data between them, in their order."""
    found: dict[str, bytes] = {}
    place = 0
    while place < len(data):
        while data[place + 1] == 0xFF:
            place += 1
        kind = data[place + 1 : place + 2].hex()
        place += 2
        if not (kind in ("d8", "d9") or "d0" <= kind <= "d7"):
            (length,) = struct.unpack_from(">H", data, place)
            found[f"{len(found)} {kind}"] = data[place + 2 : place + length]
            place += length
        else:
            found[f"{len(found)} {kind}"] = b""
        following = re.compile(rb"\xff[^\0]").search(data, place)
        end = following.start() if following else len(data)
        if end > place:
            found[f"{len(found)} data"] = data[place:end]
        place = end
    return found


def with_segments(data: bytes) -> bytes:
    """Adds APPn segments and comments of many programs, among them incomplete ones, to a JPEG image."""
    added = b""
    for kind, part in (
        (0xE2, b"ICC_PROFILE\0\1\2" + bytes(40)),
        (0xE2, b"MPF\0II*\0\x08\0\0\0\1\0"),
        (0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>"),
        (0xE1, b"FLIR\0\1\0\3" + bytes(24)),
        (0xEC, b"Ducky\0\1\0\4\0\0\0\x3c\0\0"),
        (0xED, b"Photoshop 3.0\x008BIM\4\4\0\0\0\0\0\7"),
        (0xEE, b"Adobe\0\x64\0\0\0\0\0"),
        (0xFE, b"a comment"),
        (0xFE, b""),
    ):
        added += bytes((0xFF, kind)) + struct.pack(">H", len(part) + 2) + part
    return data[:2] + added + b"\xff" + data[2:]  # further 0xff bytes may precede a marker


def jpegs() -> list[bytes]:
    """Returns JPEG images: baseline, with restart markers, progressive, with segments of many kinds."""
    grey, colour = Image.fromarray(GREY), Image.fromarray(COLOUR)
    restarts = [cv2.IMWRITE_JPEG_RST_INTERVAL, 1]
    return [
        with_segments(saved(grey, "JPEG", exif=orientation(8), comment="b")),
        with_segments(encoded(".jpg", COLOUR, *restarts)),
        encoded(".jpg", GREY, *restarts, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        saved(colour.convert("CMYK"), "JPEG"),
        saved(colour, "JPEG", exif=orientation(5), subsampling=2, optimize=True, dpi=(300, 300)),
    ]


# TIFF and PGM


def tiffs() -> list[bytes]:
    """Returns TIFF files: pages, tiles, white as 0, palettes, alpha, compressions, ImageJ and BigTIFF."""
    palette = np.random.default_rng(0).integers(0, 65536, (3, 256)).astype(np.uint16)
    planes = np.stack([GREY16] * COUNT)
    ways: list[tuple[np.ndarray, dict, dict]] = [
        (GREY, {}, {"photometric": "miniswhite"}),
        (GREY16, {}, {"photometric": "miniswhite", "rowsperstrip": 5}),
        (GREY, {}, {"photometric": "palette", "colormap": palette}),
        (GREY > 127, {}, {"photometric": "minisblack"}),
        (GREY16, {"bigtiff": True}, {"tile": (16, 16), "compression": "zlib"}),
        (GREY16, {"byteorder": ">"}, {"extratags": [(274, 3, 1, 6, True)]}),
        (np.dstack([COLOUR, GREY]), {}, {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
        (
            np.moveaxis(COLOUR, -1, 0).copy(),
            {},
            {"photometric": "rgb", "planarconfig": "separate", "rowsperstrip": 7},
        ),
        (planes, {"imagej": True}, {}),
    ]
    files = []
    for image, container, page in ways:
        stream = io.BytesIO()
        with tifffile.TiffWriter(stream, **container) as file:
            file.write(image, **page)
            if not container.get("imagej"):
                file.write(image, contiguous=False, **page)
        files.append(stream.getvalue())
    pages = [Image.fromarray(picture) for picture in grey_frames(COUNT, *SIZE[::-1])]
    for compression in (None, "tiff_lzw", "packbits", "jpeg", "group4"):
        some = [page.convert("1") for page in pages] if compression == "group4" else pages
        files.append(saved(some[0], "TIFF", save_all=True, append_images=some[1:], compression=compression))
    return files


def pgm(image: np.ndarray, peak: int, comment: bytes = b"") -> bytes:
    """Returns a binary PGM file of an image (H, W), with a maximum and a comment."""
    order = image.astype(">u2") if peak > 255 else image.astype(np.uint8)
    height, width = image.shape
    return b"P5\n%b%d %d\n%d\n" % (comment, width, height, peak) + order.tobytes()


def text_pgm(image: np.ndarray) -> bytes:
    """Returns a PGM file of an image (H, W) uint8 as text."""
    height, width = image.shape
    return f"P2 {width} {height} 255\n".encode() + b"".join(b"%d\n" % value for value in image.ravel())


# Targets


def image() -> list[Seed]:
    """Returns seeds of all image formats, grey and colour, 8 and 16 bit, with metadata and pages."""
    kinds = [(".png", GREY), (".png", GREY16), (".tiff", GREY16)]
    kinds += [(suffix, COLOUR) for suffix in (".png", ".bmp", ".jpg", ".tif")]
    seeds = [Seed({f"a{suffix}": encoded(suffix, pixels)}, folder_of, frames_of) for suffix, pixels in kinds]
    seeds += [Seed({f"a{n}.tif": data}, folder_of, frames_of) for n, data in enumerate(tiffs())]
    pngs = [encoded(".png", GREY16), *ancillary_pngs()]
    seeds += [Seed(png_chunks(data), as_png, frames_of) for data in pngs]
    seeds += [Seed(jpeg_segments(data), as_jpeg, frames_of) for data in jpegs()]
    seeds += [Seed({"a.jpg": data}, folder_of, frames_of) for data in jpegs()]
    greys = [
        pgm(GREY, 255, b"# a\n"),
        pgm(GREY16, 65535),
        pgm(GREY16 >> 4, 4095),
        pgm(GREY >> 4, 15),
        text_pgm(GREY),
    ]
    return seeds + [Seed({"a.pgm": data}, folder_of, frames_of) for data in greys]


def read_masks(folder: Path) -> str:
    """Reads a folder of images with masks as for training and conversion."""
    from datasets.layouts import registry

    found = registry.load_dataset("masks", folder, "list.txt", strict=False)
    json.dumps(found.to_coco())
    return "read, with findings" if found.findings else "read"


def score_maps(folder: Path) -> str:
    """Scores probability maps as `pipeline.mask_metrics` does."""
    from pipeline import mask_metrics

    options = ["--predictions", folder / "maps", "--masks", folder / "masks", "--allow-missing"]
    with contextlib.redirect_stdout(io.StringIO()):
        mask_metrics.work(mask_metrics.parser().parse_args([*map(str, options)]))
    return "scored"


def mask_files() -> dict[str, bytes]:
    """Returns masks of all forms that data sets are published in, by file name."""
    marked = np.zeros(SIZE[::-1], np.uint8)
    marked[3:6, 4:7], marked[10, 20] = 255, 255
    soft = marked.copy()
    soft[6, 4:7], soft[11, 20] = 64, 12
    labels = (marked > 0) * np.uint8(1)
    labels[10, 20] = 2
    palette = Image.fromarray(labels).convert("P")
    palette.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    return {
        "binary.png": encoded(".png", marked),
        "soft.png": encoded(".png", soft),
        "labels.png": encoded(".png", labels),
        "deep.png": encoded(".png", marked * np.uint16(257)),
        "bilevel.png": saved(Image.fromarray(marked).convert("1"), "PNG"),
        "palette.png": saved(palette, "PNG"),
        "alpha.png": saved(Image.fromarray(np.dstack([marked * 0] * 3 + [marked])), "PNG"),
        "empty.png": encoded(".png", marked * 0),
        "colour.bmp": encoded(".bmp", cv2.merge([marked] * 3)),
        "lossy.jpg": encoded(".jpg", marked),
        "white.tif": _tiff(marked, photometric="miniswhite"),
        "text.pgm": text_pgm(marked),
    }


def _tiff(image: np.ndarray, **options) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, image, **options)
    return stream.getvalue()


def masks() -> list[Seed]:
    """Returns seeds of masks of many forms, each with its image, and of probability maps to score."""
    from scipy.io import savemat

    plain = encoded(".png", GREY)
    seeds = []
    for name, data in mask_files().items():
        files = {f"masks/{name}": data, "images/" + Path(name).stem + ".png": plain}
        files["list.txt"] = Path(name).stem.encode()
        seeds.append(Seed(files, folder_of, read_masks))
    probability = GREY / np.float32(255)
    maps = {
        "a.png": plain,
        **made(lambda folder: np.save(folder / "a.npy", probability)),
        **made(lambda folder: savemat(folder / "a.mat", {"T": probability})),
    }
    mask = mask_files()["binary.png"]
    return seeds + [
        Seed({f"maps/{name}": data, "masks/a.png": mask}, folder_of, score_maps)
        for name, data in maps.items()
    ]
