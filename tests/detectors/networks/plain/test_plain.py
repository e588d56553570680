"""The plain network has the output encoding of all detectors and is trained by the same trainer."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from detectors.inference.postprocess import decode
from detectors.inference.score_maps import cell_maps
from detectors.inference.streaming import optimise_for_inference
from detectors.loading import load_detector
from detectors.networks.plain import PlainNetwork
from detectors.networks.plain.fused import FusedPlain
from detectors.networks.plain.network import CELL, NO_PEAK, encode_output
from detectors.networks.plain.objective import target_peaks
from detectors.training.detection_task import ClipBatch, PeakTask
from detectors.training.distributed import ProcessGroup
from detectors.training.recipe import ObjectiveRecipe, Recipe
from detectors.training.tasks import task_for
from pipeline.config.schema import DetectorConfig
from pipeline.imaging.geometry import Geometry
from pipeline.stages.ring_buffer import window_indices
from pipeline.system.errors import UsageError
from tests.support import training_runs

SMALL = {"widths": (8, 8, 8, 8)}


def test_boxes_and_peaks_come_out_of_the_raw_map():
    boxes, peaks = torch.zeros(1, 4, 6, 7), torch.full((1, 1, 6, 7), NO_PEAK)
    boxes[0, :, 2, 5] = torch.tensor([0.25, 0.75, np.log(3.0), np.log(1.5)])
    peaks[0, 0, 2, 5] = 2.0
    ((found, scores, _),) = decode(encode_output(boxes, peaks), conf=0.05, iou=0.5)
    x, y, wide, high = 5.25 * CELL, 2.75 * CELL, 3 * CELL, 1.5 * CELL
    corners = [[x - wide / 2, y - high / 2, x + wide / 2, y + high / 2]]
    np.testing.assert_allclose(found.numpy(), corners, rtol=1e-5)
    np.testing.assert_allclose(scores.numpy(), [1 / (1 + np.exp(-2.0))], rtol=1e-4)


def test_in_evaluation_only_the_best_of_neighbours_count():
    model = PlainNetwork(**SMALL).eval()
    with torch.no_grad():
        raw = model(torch.randn(2, 3, 9, 64, 96))
    assert raw.shape == (2, 6, 16, 24)
    peaks = raw[:, 4] > NO_PEAK
    assert 0 < peaks.sum() <= 2 * 8 * 12


def test_a_stream_gives_what_clips_give():
    model = PlainNetwork(**SMALL).eval()
    frames = torch.randn(12, 3, 32, 32)
    with torch.no_grad():
        stream = model.stream()
        streamed = torch.cat([stream.push(frames[:5]), *(stream.push(f[None]) for f in frames[5:])])
        clips = torch.stack([frames[window_indices(t, 9)] for t in range(12)])
        whole = model(clips.transpose(1, 2))
    torch.testing.assert_close(streamed, whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [2.0, 12.0, 40.0])
def test_the_wanted_map_is_one_at_the_cell_of_the_centre(size):
    wanted = target_peaks(torch.tensor([[21.0, 30.0, size, size]]), 16, 16)
    assert wanted.max() == 1
    assert divmod(int(wanted.argmax()), 16) == (30 // CELL, 21 // CELL)
    assert (wanted == 1).sum() == 1


def test_a_picture_without_targets_wants_nothing():
    assert not target_peaks(torch.zeros(0, 4), 5, 6).any()


def loss_of(raw, boxes):
    task = task_for(PlainNetwork(**SMALL), Recipe())
    batch = ClipBatch(torch.zeros(1), [boxes], [torch.zeros(len(boxes), dtype=torch.int64)])
    return task.loss(raw, batch, ProcessGroup())


def test_the_right_answer_has_the_least_loss():
    target = torch.tensor([[22.0, 30.0, 8.0, 8.0]])
    boxes, peaks = torch.zeros(1, 4, 16, 16), torch.full((1, 1, 16, 16), -8.0)
    boxes[:, 2:] = np.log(8.0 / CELL)
    rows, columns = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    boxes[0, 0], boxes[0, 1] = 22.0 / CELL - columns, 30.0 / CELL - rows
    peaks[0, 0, 7, 5] = 8.0
    right, terms = loss_of(encode_output(boxes, peaks), target)
    assert len(terms) == 3
    assert right < 0.05
    assert loss_of(encode_output(boxes, peaks.roll(3, dims=3)), target)[0] > right + 1
    assert loss_of(encode_output(boxes + 1.0, peaks), target)[0] > right + 0.5


def test_a_batch_without_targets_has_a_finite_loss():
    raw = torch.zeros(1, 6, 4, 4, requires_grad=True)
    loss, _ = loss_of(raw, torch.zeros(0, 4))
    loss.backward()
    assert torch.isfinite(raw.grad).all()


def test_targets_at_the_border_have_cells():
    loss, _ = loss_of(torch.zeros(1, 6, 4, 4), torch.tensor([[15.99, 0.01, 4.0, 4.0], [0.0, 15.0, 4.0, 4.0]]))
    assert torch.isfinite(loss)


def test_the_network_is_trained_with_peaks():
    assert isinstance(task_for(PlainNetwork(), Recipe()), PeakTask)


def test_a_window_gives_the_same_to_the_bit_in_every_batch():
    model = PlainNetwork(**SMALL).eval()
    clips = torch.randn(3, 3, 9, 32, 64)
    with torch.no_grad():
        whole, single = model(clips), torch.cat([model(clip[None]) for clip in clips])
    assert torch.equal(whole, single)


def test_the_fused_network_gives_equal_outputs():
    torch.manual_seed(0)
    model = PlainNetwork(**SMALL)
    clips = torch.randn(2, 3, 9, 32, 64)
    for _ in range(3):
        model(clips)  # norms see something
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # residual branches start at 0
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    model.eval()
    with torch.inference_mode():
        torch.testing.assert_close(FusedPlain(model)(clips), model(clips), rtol=1e-4, atol=1e-4)


def test_a_run_uses_the_fused_network():
    assert isinstance(optimise_for_inference(PlainNetwork(**SMALL).eval(), "fp32"), FusedPlain)


@pytest.mark.parametrize("shape", [(1, 3, 5, 32, 32), (1, 1, 9, 32, 32), (3, 9, 32, 32), (1, 3, 9, 32, 40)])
def test_clips_of_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match="expected"):
        PlainNetwork(**SMALL)(torch.zeros(shape))


def test_it_is_trained_by_name(tmp_path):
    training_runs.write_clip(tmp_path)
    options = {"model.name": "plain", "data.synthetic_share": 0.0, "schedule.whole_share": 0.0}
    assert training_runs.run(tmp_path, tmp_path / "run", 3, **options) == 0
    assert len(training_runs.losses(tmp_path / "run")) == 3
    assert (tmp_path / "run" / "best.safetensors").exists()


def test_half_precision_and_other_qualities_are_refused():
    with pytest.raises(UsageError, match="precision bf16 is not supported by 'plain'"):
        load_detector(DetectorConfig(name="plain", weights="plain-specks", precision="bf16", device="cpu"))
    with pytest.raises(UsageError, match=r"objective\.quality is for Tridos"):
        task_for(PlainNetwork(**SMALL), Recipe(objective=ObjectiveRecipe(quality="wasserstein")))


def test_cells_of_score_maps_have_the_stride_of_the_output():
    with torch.no_grad():
        raw = PlainNetwork(**SMALL).eval()(torch.randn(1, 3, 9, 32, 64))
    (found,) = cell_maps(raw, Geometry.native((64, 32)))
    assert found.values.shape == (8, 16)
    assert found.cell == (CELL, CELL)
