"""All bits of the source reach the network on the declared scale, for every file format."""

from __future__ import annotations

import functools
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import zarr
from PIL import Image

import detectors
from datasets.sequences.clips import VideoSequence
from datasets.sequences.views import scale_intensity
from detectors.inference.normalisation import DEVIATION, MEAN, to_network_input
from detectors.inference.segmentation import FrameSegmenter
from detectors.inference.streaming import StreamingDetector
from pipeline.config.schema import ComponentsConfig, DetectorConfig, SourceConfig
from pipeline.drawing.annotator import Annotator
from pipeline.imaging.intensity_scaling import (
    FULL_SCALE,
    RunningPercentiles,
    apply_levels,
    network_images,
    parse_scaling,
)
from pipeline.sources.opening import open_source
from pipeline.sources.sequences import grey_images
from pipeline.structures.detections import Detections
from pipeline.structures.frame import Frame
from pipeline.structures.results import Result
from pipeline.structures.tracks import Tracks
from pipeline.system.errors import SourceError, SourceLost, UsageError
from tests.support.media import write_video

RAW = {"format": "raw", "size": "256x256"}


def ramps(bits: int = 16) -> list[np.ndarray]:
    """Two pictures (256, 256) uint16 with every level of the bit depth, sorted and shuffled."""
    levels = np.arange(1 << 16, dtype=np.uint16) >> (16 - bits)
    return [levels.reshape(256, 256), np.random.default_rng(0).permutation(levels).reshape(256, 256)]


def as_png(folder: Path, images: list[np.ndarray]) -> tuple[Path, dict]:
    for number, image in enumerate(images):
        cv2.imwrite(str(folder / f"{number}.png"), image)
    return folder, {}


def as_tiff(folder: Path, images: list[np.ndarray]) -> tuple[Path, dict]:
    for number, image in enumerate(images):
        cv2.imwrite(str(folder / f"{number}.tif"), image)
    return folder, {}


def as_pages(folder: Path, images: list[np.ndarray]) -> tuple[Path, dict]:
    first, *others = map(Image.fromarray, images)
    first.save(folder / "pages.tif", save_all=True, append_images=others)
    return folder / "pages.tif", {}


def as_raw(folder: Path, images: list[np.ndarray]) -> tuple[Path, dict]:
    (folder / "frames.bin").write_bytes(b"".join(image.astype("<u2").tobytes() for image in images))
    return folder / "frames.bin", {**RAW, "dtype": "uint16le"}


def as_raw_big_endian(folder: Path, images: list[np.ndarray]) -> tuple[Path, dict]:
    header = b"some camera's header"
    (folder / "frames.bin").write_bytes(header + b"".join(image.astype(">u2").tobytes() for image in images))
    return folder / "frames.bin", {**RAW, "dtype": "uint16be", "header": len(header)}


def as_zarr(folder: Path, images: list[np.ndarray]) -> tuple[Path, dict]:
    zarr.create_array(folder / "a.zarr", data=np.stack(images), chunks=(1, 100, 256))
    return folder / "a.zarr", {}


def as_ffv1(folder: Path, images: list[np.ndarray], pixel_format: str = "gray16le") -> tuple[Path, dict]:
    formats = {"pixel_format": pixel_format, "source_format": pixel_format}
    return write_video(folder / "a.mkv", images, codec="ffv1", **formats), {}


STORED = [as_png, as_tiff, as_pages, as_raw, as_raw_big_endian, as_zarr, as_ffv1]


def frames_of(location: Path, **options) -> list[Frame]:
    with open_source(location, **options) as source:
        return list(source)


@functools.cache
def default_detector() -> StreamingDetector:
    return StreamingDetector(detectors.build("tridos-nano"), DetectorConfig(), torch.device("cpu"))


def network_input(frames: list[Frame]) -> torch.Tensor:
    """Returns the input (B, 3, H, W) of the default network for the frames."""
    detector = default_detector()
    detector.reset()
    return detector.preprocess(tuple(frames))


@pytest.mark.parametrize("store", STORED)
def test_a_sixteen_bit_ramp_gives_the_same_network_input_from_every_format(tmp_path, store):
    location, options = store(tmp_path, ramps())
    frames = frames_of(location, **options, scaling="full-range")
    assert [frame.bit_depth for frame in frames] == [16, 16]
    shares = np.stack(ramps())[:, None] / np.float32(65535)
    mean, deviation = (np.array(v, np.float32).reshape(1, 3, 1, 1) for v in (MEAN, DEVIATION))
    found = network_input(frames)
    np.testing.assert_array_equal(found.numpy(), (shares - mean) / deviation)
    assert len(found[0, 0].unique()) == 65536


@pytest.mark.parametrize("scaling", ["fixed 1000 60000", "percentile", "percentile 5 95", "running"])
def test_scaled_network_inputs_are_the_same_from_every_format(tmp_path, scaling):
    found = []
    for number, store in enumerate(STORED):
        folder = tmp_path / str(number)
        folder.mkdir()
        location, options = store(folder, ramps())
        found.append(network_input(frames_of(location, **options, scaling=scaling)))
    assert all(torch.equal(found[0], other) for other in found[1:])
    assert found[0].std() > 0.5
    assert not torch.equal(found[0], network_input(frames_of(location, **options, scaling="full-range")))


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_grey_video_of_any_depth_keeps_its_full_scale(tmp_path, bits):
    location, _ = as_ffv1(tmp_path, ramps(bits), f"gray{bits}le")
    pictures, full_scale = network_images(frames_of(location, scaling="full-range"))
    assert full_scale == 2**bits - 1
    np.testing.assert_array_equal(pictures, ramps(bits))


@pytest.mark.parametrize("store", [as_png, as_pages, as_raw, as_zarr, as_ffv1])
def test_fourteen_bits_stored_in_sixteen_count_as_fourteen_if_declared(tmp_path, store):
    location, options = store(tmp_path, ramps(14))
    with open_source(location, **options, bits=14) as source:
        assert source.info.bit_depth == 14
        frame = next(source)
    video, _ = as_ffv1(tmp_path, ramps(14), "gray14le")
    torch.testing.assert_close(network_input([frame]), network_input(frames_of(video)[:1]), rtol=0, atol=0)


def test_samples_beyond_the_declared_bits_end_the_source(tmp_path):
    folder, _ = as_png(tmp_path, [*ramps(14), ramps(16)[0]])
    with open_source(folder, bits=14) as source:
        assert [next(source).index, next(source).index] == [0, 1]
        with pytest.raises(
            SourceLost, match=r"frame 2 holds 65535, more than 14 bits can; give --source-bits"
        ):
            next(source)


def test_more_declared_bits_than_stored_are_refused(tmp_path):
    folder, _ = as_png(tmp_path, [np.zeros((8, 8), np.uint8)])
    with pytest.raises(SourceError, match=r"holds 8-bit samples, to which --source-bits 14 does not fit"):
        open_source(folder, bits=14)


def test_fixed_levels_are_the_ends_of_the_scale():
    image = np.array([[0, 1000, 2000, 3000, 3001, 65535]], np.uint16)
    expected = [[0, 0, round(FULL_SCALE / 2), FULL_SCALE, FULL_SCALE, FULL_SCALE]]
    assert apply_levels(image, parse_scaling("fixed 1000 3000")(image)).tolist() == expected


def test_percentiles_are_computed_per_frame():
    scaling, scene = parse_scaling("percentile 10 90"), np.arange(1001, dtype=np.uint16).reshape(7, 143)
    assert scaling(scene) == (100, 900)
    assert scaling(scene + 5000) == (5100, 5900)
    assert scaling(scene) == (100, 900)


def test_the_noise_of_a_uniform_scene_is_not_stretched_to_the_full_scale():
    noise = np.random.default_rng(0).integers(8000, 8004, (64, 64), np.uint16)
    low, high = parse_scaling("percentile")(noise)
    assert high - low > 8 * 4
    assert low < 8000 < 8004 < high
    still = np.full((64, 64), 8000, np.uint16)
    assert parse_scaling("percentile")(still) == (7984, 8016)


def test_running_levels_follow_slowly_and_restart_at_another_scene():
    scene = np.arange(1000, 5096, dtype=np.uint16).reshape(64, 64)
    running = RunningPercentiles(0, 100)
    assert running(scene) == (1000, 5095)
    low, high = running(scene + 1000)
    assert 1000 < low < 1100
    assert 5095 < high < 5200
    assert running(scene + 30000) == (31000, 35095)
    running.reset()
    assert running(scene) == (1000, 5095)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected auto, full-range, fixed LO HI"),
        ("fixed", "expected auto, full-range, fixed LO HI"),
        ("fixed 1", "expected auto, full-range, fixed LO HI"),
        ("fixed one two", "expected auto, full-range, fixed LO HI"),
        ("fixed 0 inf", "expected auto, full-range, fixed LO HI"),
        ("full-range 0 1", "expected auto, full-range, fixed LO HI"),
        ("minmax", "expected auto, full-range, fixed LO HI"),
        ("fixed 5 5", "expected LO to be less than HI"),
        ("percentile 99 1", "expected LO to be less than HI"),
        ("running 1 101", "expected percentiles from 0 to 100"),
    ],
)
def test_an_invalid_scaling_is_refused(text, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        SourceConfig(scaling=text)
    with pytest.raises(UsageError, match=message):
        open_source(tmp_path, scaling=text)


def test_scaling_changes_the_network_input_and_not_the_drawing(tmp_path):
    location, _ = as_png(tmp_path, ramps())
    plain, other = frames_of(location)[0], frames_of(location, scaling="fixed 30000 31000")[0]
    np.testing.assert_array_equal(plain.image, other.image)
    drawn = [Annotator()(Result(f, Detections.empty(), False, tracks=Tracks.empty())) for f in (plain, other)]
    np.testing.assert_array_equal(*drawn)
    assert not torch.equal(network_input([plain]), network_input([other]))


def test_drawing_a_frame_does_not_change_the_network_input():
    frame = Frame(ramps()[1], 0, Fraction(0), "test", 16, (2000, 60000))
    before = network_input([frame])
    Annotator()(Result(frame, Detections.empty(), False, tracks=Tracks.empty()))
    torch.testing.assert_close(network_input([frame]), before, rtol=0, atol=0)


@pytest.mark.parametrize("scaling", ["auto", "full-range", "fixed 100 4000", "percentile 1 99", "running"])
@pytest.mark.parametrize("depth", [8, 16])
def test_training_and_inference_use_the_same_network_input(tmp_path, scaling, depth):
    """Clips may begin anywhere and repeat frames; running levels are still those of the whole sequence."""
    images = [(ramp // 7 + 300 * n) >> (16 - depth) for n, ramp in enumerate(ramps() * 3)]
    location, _ = as_png(tmp_path, [image.astype(f"uint{depth}") for image in images])
    files = sorted(location.iterdir())
    pixels = np.stack(list(grey_images(files, name="made")))
    empty = tuple(np.zeros((0, 4), np.float32) for _ in pixels)
    sequence = scale_intensity(
        VideoSequence("made", pixels, empty, tuple(box[:, 0] for box in empty)), scaling
    )
    read = sequence.frames[np.array([0, 0, 3, 5])]
    trained = to_network_input(read, full_scale=int(np.iinfo(sequence.frames.dtype).max))
    run = network_input(frames_of(location, scaling=scaling))
    torch.testing.assert_close(trained, run[[0, 0, 3, 5]], rtol=0, atol=0)
    np.testing.assert_array_equal(sequence.frames[3], read[2])
    np.testing.assert_array_equal(sequence.frames[2:4][1], read[2])


def test_segmenters_get_the_same_scale_as_detectors(tmp_path):
    class Spy:
        def batch(self, images, *, bit_depth):
            self.seen = [image / (2**bit_depth - 1) for image in images]
            return np.zeros((len(images), *images[0].shape), np.float32)

    location, _ = as_png(tmp_path, ramps())
    frames, spy = frames_of(location, scaling="fixed 0 1000"), Spy()
    FrameSegmenter("spy", spy, ComponentsConfig())(frames)
    expected = [np.minimum(ramp, 1000) / 1000 for ramp in ramps()]
    np.testing.assert_allclose(spy.seen, expected, atol=1e-5)
