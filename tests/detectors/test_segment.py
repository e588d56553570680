"""The command that writes probability maps of a folder of images."""

from __future__ import annotations

import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch

import detectors
from detectors import segment
from detectors.inference import map_files
from detectors.inference.probability_maps import ProbabilityMaps, load_segmenter
from detectors.networks.segmenters.base import Segmenter
from detectors.networks.segmenters.resampling import resample_to_network
from detectors.weights import state_dict
from pipeline import mask_metrics
from pipeline.evaluation.segmentation.map_files import read_map
from pipeline.imaging.image_files import read_image
from pipeline.imaging.mask_files import read_mask
from pipeline.imaging.pixel_formats import convert_channels
from pipeline.system.errors import UsageError, WeightsError
from tests.conftest import PROJECT_ROOT

PICTURES = {"a1.png": (33, 47), "a2.bmp": (16, 24), "a10.tif": (40, 30)}
"""Name → rows and columns."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> str:
    """Path of weights of RDIAN that give maps with values from 0 to 1."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = detectors.build("rdian")
    model.head.block[-1].weight.data *= 8
    path = tmp_path_factory.mktemp("weights") / "rdian.safetensors"
    state_dict.save(model.state_dict(), path, metadata={"trained_on": "nothing"})
    return str(path)


@pytest.fixture(scope="module")
def model(trained):
    return load_segmenter("rdian", trained)[0].eval()


@pytest.fixture
def images(tmp_path):
    """A folder `sea/images` of grey, colour and 16-bit images of several sizes."""
    folder, chance = tmp_path / "sea" / "images", np.random.default_rng(0)
    folder.mkdir(parents=True)
    for name, size in PICTURES.items():
        shape, full, dtype = size, 255, np.uint8
        if name == "a2.bmp":
            shape = (*size, 3)
        if name == "a10.tif":
            full, dtype = 65535, np.uint16
        cv2.imwrite(str(folder / name), chance.integers(0, full, shape, dtype, endpoint=True))
    return folder


@pytest.fixture
def call(images, trained, tmp_path, capsys):
    """Runs the command on the images: options → exit code, standard output, standard error."""

    def call(*options, **flags):
        flags = {
            "detector": "rdian",
            "weights": trained,
            "images": images,
            "output": tmp_path / "out",
        } | flags
        named = [text for name, value in flags.items() if value for text in (f"--{name}", str(value))]
        return segment.main([*named, "--progress", "off", *map(str, options)]), *capsys.readouterr()

    return call


def files(folder) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# Maps


def test_each_image_gets_its_map_in_both_formats(call, images, model, tmp_path):
    code, out, err = call("--format", "png", "mat")
    assert (code, err) == (0, "")
    assert out.startswith(f"3 maps in {tmp_path}/out/sea/img, {tmp_path}/out/sea/mat; ")
    stems = [name.partition(".")[0] for name in PICTURES]
    expected = [
        f"sea/{folder}/{stem}.{kind}" for folder, kind in (("img", "png"), ("mat", "mat")) for stem in stems
    ]
    assert files(tmp_path / "out") == sorted(expected)
    for name, size in PICTURES.items():
        stem = name.partition(".")[0]
        image = read_image(images / name)
        grey = convert_channels(image, grey=True).astype(np.float32) / np.iinfo(image.dtype).max
        with torch.inference_mode():
            probability = model.probability(torch.from_numpy(grey)[None, None])[0, 0].numpy()
        assert probability.shape == size
        assert np.ptp(probability) > 0.1
        assert np.array_equal(read_map(tmp_path / f"out/sea/mat/{stem}.mat"), probability)
        written = cv2.imread(str(tmp_path / f"out/sea/img/{stem}.png"), cv2.IMREAD_UNCHANGED)
        assert (written.dtype, written.shape) == (np.uint8, size)
        np.testing.assert_array_equal(written, np.rint(probability * 255))


@pytest.mark.parametrize("form", ["img", "mat"])
def test_the_mask_metrics_read_the_maps(call, images, tmp_path, capsys, form):
    assert call("--format", "png", "mat")[0] == 0
    (tmp_path / "masks").mkdir()
    for name, size in PICTURES.items():
        mask = np.zeros(size, np.uint8)
        mask[5:8, 5:8] = 255
        cv2.imwrite(str(tmp_path / "masks" / name.replace(".", "_mask.")), mask)
    maps = tmp_path / "out" / "sea" / form
    assert mask_metrics.main(["--predictions", str(maps), "--masks", str(tmp_path / "masks")]) == 0
    assert capsys.readouterr().out.startswith("images 3 (0 without targets), targets 3")


def test_only_png_files_are_written_by_default(call, tmp_path):
    assert call()[0] == 0
    assert {name.split("/")[1] for name in files(tmp_path / "out")} == {"img"}


@pytest.mark.parametrize(
    ("folder", "given", "expected"),
    [("sea/images", None, "sea"), ("sea/day", None, "day"), ("sea/images", "night", "night")],
)
def test_the_dataset_is_named_by_its_folder(folder, given, expected, tmp_path):
    assert map_files.dataset_name(tmp_path / folder, given) == expected


@pytest.mark.parametrize("given", ["", ".", "..", "a/b", "/"])
def test_a_dataset_must_be_a_plain_name(given, tmp_path):
    with pytest.raises(UsageError, match="give one with --dataset"):
        map_files.dataset_name(tmp_path, given)


def test_an_alias_and_a_resized_input_are_accepted(tmp_path, trained, images, call):
    code, out, _ = call(size="64x32", fit="stretch", precision="bf16", detector="RDIAN")
    assert (code, out.startswith("3 maps")) == (0, True)
    assert read_map(tmp_path / "out/sea/img/a1.png").shape == PICTURES["a1.png"]


def test_mirrored_views_are_averaged_on_request(call, images, model, tmp_path):
    assert call("--flip-averaging", format="mat")[0] == 0
    image, found = read_image(images / "a1.png"), read_map(tmp_path / "out/sea/mat/a1.mat")
    assert np.array_equal(found, ProbabilityMaps(model, flip_averaging=True)(image))
    assert not np.array_equal(found, ProbabilityMaps(model)(image))


@pytest.mark.parametrize("source", ["option", "weights"])
def test_images_are_enlarged_by_the_option_or_as_in_the_training(call, images, model, tmp_path, source):
    flags = {"enlarge": 2}
    if source == "weights":
        flags = {"weights": tmp_path / "enlarged.safetensors"}
        state_dict.save(model.state_dict(), flags["weights"], metadata={"recipe": {"data": {"enlarge": 2.0}}})
    assert call(format="mat", **flags)[0] == 0
    image = read_image(images / "a1.png")
    expected = ProbabilityMaps(model, enlarge=2)(image)
    found = read_map(tmp_path / "out/sea/mat/a1.mat")
    assert np.array_equal(found, expected)
    assert not np.array_equal(found, ProbabilityMaps(model)(image))


@pytest.mark.parametrize("name", ["datransnet", "madnet"])
def test_half_precision_stays_near_full_precision(name):
    torch.manual_seed(0)
    model = detectors.build(name).eval()
    image = np.random.default_rng(0).integers(0, 255, (40, 50), np.uint8)
    full, half = (ProbabilityMaps(model, precision=precision)(image) for precision in ("fp32", "bf16"))
    assert half.dtype == np.float32
    assert not np.array_equal(full, half)
    assert np.abs(full - half).max() < 0.05


# Existing files


def test_existing_maps_are_replaced_on_request_only(call, tmp_path):
    assert call()[0] == 0
    target = tmp_path / "out/sea/img/a2.png"
    target.write_bytes(b"mine")
    code, out, err = call()
    assert (code, out) == (5, "")
    assert (
        err == f"error: {tmp_path}/out/sea/img/a1.png exists already; use --overwrite or another --output\n"
    )
    assert target.read_bytes() == b"mine"
    assert call("--overwrite")[0] == 0
    assert read_map(target).shape == PICTURES["a2.bmp"]


def test_the_images_themselves_are_never_replaced(call, tmp_path):
    (tmp_path / "sea" / "img").mkdir()
    cv2.imwrite(str(tmp_path / "sea/img/a.png"), np.zeros((20, 20), np.uint8))
    before = (tmp_path / "sea/img/a.png").read_bytes()
    code, _, err = call("--overwrite", images=tmp_path / "sea/img", output=tmp_path, dataset="sea")
    assert (code, "contains the images themselves" in err) == (5, True)
    assert (tmp_path / "sea/img/a.png").read_bytes() == before


def test_an_output_that_cannot_be_written_is_reported_first(call, tmp_path):
    (tmp_path / "out").write_text("a file")
    code, _, err = call()
    assert code == 5
    assert err.startswith(f"error: cannot write {tmp_path}/out/sea/img: Not a directory")


# Invalid input


def test_an_image_that_cannot_be_read_is_named_and_the_others_are_processed(call, images, tmp_path):
    (images / "a1.png").write_bytes(b"nothing of use")
    code, out, err = call()
    assert code == 3
    assert err == (
        f"error: 1 of 3 images have no map: {images}/a1.png cannot be decoded: it is damaged or no image\n"
    )
    assert out.startswith("2 maps in ")
    assert files(tmp_path / "out") == ["sea/img/a10.png", "sea/img/a2.png"]


def test_a_folder_of_damaged_images_only_writes_nothing(call, images, tmp_path):
    for name in PICTURES:
        (images / name).write_bytes(b"nothing of use")
    code, out, err = call()
    assert (code, out, "3 of 3 images" in err) == (3, "", True)
    assert files(tmp_path / "out") == []


def test_two_images_of_one_name_are_refused(call, images, tmp_path):
    cv2.imwrite(str(images / "a1.bmp"), np.zeros((20, 20), np.uint8))
    code, _, err = call()
    assert (code, "has both a1.bmp and a1.png; keep one" in err) == (3, True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        ({"images": "nowhere"}, 3, "nowhere is not a folder; one with images (.png, "),
        ({"images": PROJECT_ROOT / "tests"}, 3, "tests contains no images (.png, "),
        ({"detector": "rdiam"}, 2, "unknown detector 'rdiam'; did you mean 'rdian'?"),
        (
            {"detector": "tridos"},
            2,
            "detector 'tridos' predicts boxes, not probability maps; segmenters are ",
        ),
        ({"detector": "madnet"}, 4, "is not for this MADNet: "),
        ({"detector": "madnet", "weights": None}, 4, "no weights ship for detector 'madnet'; give a file"),
        ({"weights": "nowhere.pth"}, 4, "weights file nowhere.pth does not exist"),
        ({"size": "64"}, 2, "size = '64', expected native or WxH such as 512x512"),
        ({"size": "0x64"}, 2, "size = '0x64', expected native or WxH"),
        ({"enlarge": "9"}, 2, "'9', expected 0.25 to 8"),
        ({"enlarge": 2, "size": "64x64"}, 2, "--enlarge is for a native size; leave it out, or --size"),
        ({"format": "npy"}, 2, "invalid choice: 'npy'"),
        ({"device": "tpu"}, 2, "unknown device 'tpu'"),
        ({"dataset": "a/b"}, 2, "dataset 'a/b' is not a valid folder name"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_invalid_input_is_reported_in_one_line_and_nothing_is_written(call, tmp_path, flags, code, message):
    result, out, err = call(**flags)
    assert (result, out) == (code, "")
    assert message in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


class Wide(Segmenter):
    multiple = 32


class Rigid(Segmenter):
    multiple = 16
    fixed_size = 64


@pytest.mark.parametrize(
    ("kind", "size", "message"),
    [
        (Wide, (100, 64), "size 100x64: Wide takes multiples of 32"),
        (Rigid, (96, 96), "size 96x96: this Rigid takes only 64x64, which is its native size, too"),
    ],
)
def test_a_size_that_the_network_does_not_take_is_refused(kind, size, message):
    with pytest.raises(UsageError) as error:
        ProbabilityMaps(kind(), size=size)
    assert str(error.value) == message


def test_weights_that_give_nan_are_refused(trained):
    model = load_segmenter("rdian", trained)[0]
    model.head.block[-1].bias.data.fill_(float("nan"))
    with pytest.raises(WeightsError, match="RDIAN gives NaN"):
        ProbabilityMaps(model)(np.zeros((20, 20), np.uint8))


def test_help_loads_neither_torch_nor_image_libraries():
    code = """
import sys
from detectors.segment import main
assert main(["--help"]) == 0
sys.exit(any(name in sys.modules for name in ("torch", "cv2", "av", "scipy")))
"""
    reply = subprocess.run([sys.executable, "-c", code], cwd=PROJECT_ROOT, capture_output=True, text=True)
    assert (reply.returncode, reply.stderr) == (0, "")
    assert reply.stdout.startswith("usage: python -m detectors.segment ")


# The authors' trained RDIAN


@pytest.fixture
def published(shared_root, tmp_path):
    """Flags for the authors' weights on their image, and their mask."""
    folder = shared_root / "parity" / "original"
    (tmp_path / "published").mkdir()
    (tmp_path / "published" / "1.png").symlink_to(folder / "rdian-image-1.png")
    flags = {"weights": folder / "rdian.best.pth", "images": tmp_path / "published"}
    return flags, read_mask(folder / "rdian-mask-1.png")


@pytest.mark.real_data
@pytest.mark.parametrize("options", [{}, {"size": "512x512", "fit": "stretch"}], ids=["native", "stretched"])
def test_the_authors_weights_mark_their_target_and_one_pixel_more(call, published, options, tmp_path):
    flags, mask = published
    assert call("--format", "png", "mat", **flags, **options)[0] == 0
    for file in ("img/1.png", "mat/1.mat"):
        found = read_map(tmp_path / "out/published" / file) > 0.5
        assert found.shape == (480, 720)
        assert (found.sum(), (found & mask).sum(), mask.sum()) == (7, 6, 6)


@pytest.mark.real_data
def test_in_the_pixels_of_the_stretched_input_they_mark_their_target_exactly(published):
    flags, mask = published
    model = load_segmenter("rdian", str(flags["weights"]))[0]
    maps = ProbabilityMaps(model, size=(512, 512), fit="stretch")
    image = convert_channels(read_image(flags["images"] / "1.png"), grey=True).astype(np.float32) / 255
    geometry = maps.geometry((720, 480))
    with torch.inference_mode():
        inputs = model.inputs(torch.from_numpy(image)[None, None], geometry)
        found = model.activation(*inputs)[0, 0].numpy() > 0.5
    shrunk = (
        resample_to_network(torch.from_numpy(mask.astype(np.float32))[None, None], geometry)[0, 0].numpy()
        > 0.5
    )
    assert found.sum() == 6
    assert np.array_equal(found, shrunk)
