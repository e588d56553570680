"""Every segmenter gives a map of the size of the image, for images of any size."""

from __future__ import annotations

import pytest
import torch

import detectors
from detectors.networks.segmenters.resampling import resample_to_network, resample_to_source
from pipeline.imaging.geometry import Geometry

SMALL = {"drtenet": {"ori_h": 64}}


@pytest.mark.parametrize("size", [(33, 47), (256, 320), (128, 129)], ids=str)
@pytest.mark.parametrize("name", detectors.SEGMENTERS)
def test_an_image_of_any_size_gives_a_map_of_the_same_size(name, size):
    torch.manual_seed(0)
    model = detectors.build(name, **SMALL.get(name, {})).eval()
    with torch.inference_mode():
        found = model.probability(torch.rand(2, 1, *size))
    assert found.shape == (2, 1, *size)
    assert found.isfinite().all()
    assert found.min() >= 0
    assert found.max() <= 1


@pytest.mark.parametrize("name", ["rdian", "datransnet"])
def test_an_image_that_needs_no_padding_is_not_resampled(name):
    torch.manual_seed(0)
    model, image = detectors.build(name).eval(), torch.rand(1, 1, 64, 96)
    with torch.inference_mode():
        torch.testing.assert_close(
            model.probability(image), model.activation(model.normalise(image)), rtol=0, atol=0
        )


def test_padding_is_undone_exactly():
    images, geometry = torch.rand(2, 3, 33, 47), Geometry.native((47, 33), multiple=32)
    fitted = resample_to_network(images, geometry)
    assert fitted.shape == (2, 3, 64, 64)
    torch.testing.assert_close(resample_to_source(fitted, geometry), images, rtol=0, atol=0)
    torch.testing.assert_close(fitted[..., :33, 47:], images[..., -1:].expand(2, 3, 33, 17), rtol=0, atol=0)


@pytest.mark.parametrize("kind", [Geometry.letterbox, Geometry.stretch], ids=["letterbox", "stretch"])
def test_a_resized_map_comes_back_to_its_place(kind):
    images = torch.zeros(1, 1, 50, 70)
    images[..., 20:30, 40:52] = 1
    geometry = kind((70, 50), (128, 128))
    back = resample_to_source(resample_to_network(images, geometry), geometry)
    assert back.shape == images.shape
    assert ((back > 0.5) == (images > 0.5)).float().mean() > 0.99


def test_images_of_another_size_than_the_geometry_are_refused():
    with pytest.raises(ValueError, match="expected 47x33 pixels"):
        resample_to_network(torch.zeros(1, 1, 47, 33), Geometry.native((47, 33)))


def test_frames_may_be_enlarged_evenly():
    geometry = Geometry.native((321, 256), scale=1.5)
    assert geometry.content == (482, 384)
    assert geometry.network == (512, 384)
    assert geometry.offset == (0, 0)
