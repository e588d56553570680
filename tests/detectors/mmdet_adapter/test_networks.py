"""Our networks as models of mmdet: the same outputs, losses and predictions as ours."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import detectors
from datasets.sequences.clips import Clip
from datasets.synthesis import rendering
from datasets.synthesis.scene import Scene
from detectors.inference.postprocess import decode
from detectors.mmdet_adapter import clips, installation
from detectors.training.detection_task import DetectionTask
from detectors.training.distributed import ProcessGroup
from detectors.weights import restore, state_dict
from pipeline.system.errors import UsageError
from tests.support.sequences import random_clip


@pytest.fixture(scope="module", autouse=True)
def registries():
    installation.prepare()
    from mmdet import registry

    return registry


def packed(*found: Clip, pack=clips.PackClip) -> dict:
    """Returns a batch of packed clips as mmengine's loader collates it."""
    rows = [
        pack()({"clip": clip, "img_id": n, "frame_id": 4, "video_id": 0, "ori_video_length": 5})
        for n, clip in enumerate(found)
    ]
    return {key: [row[key] for row in rows] for key in ("inputs", "data_samples")}


def square(seed: int, **more) -> Clip:
    """Returns a clip of 64x32 pixels, which needs no padding."""
    clip = random_clip(seed)
    frames = np.pad(clip.frames[:, :32], ((0, 0), (0, 0), (0, 16)), mode="edge")
    inside = clip.boxes[:, 3] <= 32
    return replace(clip, frames=frames, boxes=clip.boxes[inside], labels=clip.labels[inside] * 0, **more)


@pytest.fixture(scope="module")
def nano(nano_weights):
    """Our network and the model of mmdet with the same weights."""
    from mmdet.registry import MODELS

    ours, _, _ = restore.restore_network("tridos-nano", nano_weights)
    theirs = MODELS.build({"type": "MoteTridosNano", "weights": nano_weights, "conf": 0.2})
    return ours.eval(), theirs.eval()


def test_raw_outputs_are_those_of_our_network(nano):
    ours, theirs = nano
    found = [square(1), square(2)]
    batch = DetectionTask().collate(found, torch.device("cpu"))
    with torch.inference_mode():
        expected = ours(batch.frames)
        raw = theirs(packed(*found)["inputs"], mode="tensor")
    assert raw.abs().max() > 0.1
    torch.testing.assert_close(raw, expected, rtol=0, atol=1e-6)


def test_names_of_weights_are_ours_with_one_prefix(nano):
    ours, theirs = nano
    assert {f"model.{name}" for name in ours.state_dict()} == set(theirs.state_dict())
    assert state_dict.strip_prefixes(theirs.state_dict()).keys() == ours.state_dict().keys()


def test_the_wide_network_is_registered_too(registries):
    kinds = [registries.MODELS.get(name) for name in ("MoteTridos", "MoteTridosNano")]
    assert [kind.network for kind in kinds] == ["tridos", "tridos-nano"]
    assert all(kind.network in detectors.DETECTORS for kind in kinds)


def test_the_loss_is_that_of_our_trainer(nano):
    ours, theirs = nano
    found = [square(1), square(3)]
    batch = DetectionTask().collate(found, torch.device("cpu"))
    losses = theirs.loss(torch.stack(packed(*found)["inputs"]), packed(*found)["data_samples"])
    total, terms = DetectionTask().loss(ours(batch.frames), batch, ProcessGroup())
    assert sum(map(len, batch.boxes)) > 2
    assert losses["loss"].item() == pytest.approx(total.item(), rel=1e-6)
    parts = [losses[name].item() for name in ("ciou", "objectness", "classes")]
    assert parts == pytest.approx(terms[1:], rel=1e-6)


def test_predictions_are_boxes_in_pixels_of_the_source_within_it(nano):
    ours, theirs = nano
    clip = random_clip(4)  # 48x40, padded to 64x64
    batch = packed(clip)
    assert batch["inputs"][0].shape == (3, 5, 64, 64)
    sample = theirs.test_step(batch)[0].video_data_samples[0]
    found = sample.pred_instances
    with torch.inference_mode():
        boxes, scores, _ = decode(ours(batch["inputs"][0][None]), conf=0.2, iou=0.5)[0]
    inside = (boxes[:, 0] < 48) & (boxes[:, 1] < 40) & (boxes[:, 2] > 0) & (boxes[:, 3] > 0)
    assert len(found) == inside.sum() > 0
    assert len(scores) > len(found)
    torch.testing.assert_close(found.scores, scores[inside])
    low, high = found.bboxes.min(dim=0).values, found.bboxes.max(dim=0).values
    assert low.min() >= 0
    assert high[2] <= 48
    assert high[3] <= 40


def test_a_sample_of_one_frame_is_accepted_like_one_of_a_track(nano):
    _, theirs = nano
    batch = packed(square(1))
    tracks = theirs.predict(torch.stack(batch["inputs"]), batch["data_samples"])
    single = theirs.predict(torch.stack(batch["inputs"]), [tracks[0].video_data_samples[0].clone()])
    torch.testing.assert_close(
        single[0].pred_instances.bboxes, tracks[0].video_data_samples[0].pred_instances.bboxes, rtol=0, atol=0
    )


def test_other_modes_and_missing_samples_are_refused(nano):
    _, theirs = nano
    inputs = packed(square(1))["inputs"]
    with pytest.raises(UsageError, match="mode 'train' of MoteTridosNano, expected loss, predict or tensor"):
        theirs(inputs, mode="train")
    with pytest.raises(UsageError, match="mode 'loss' of MoteTridosNano needs data_samples"):
        theirs(inputs, mode="loss")


def with_mask(seed: int) -> Clip:
    clip = square(seed)
    return replace(clip, frames=clip.frames[-1:], mask=clip.frames[-1] == 255)


@pytest.fixture(scope="module")
def segmenter(registries):
    torch.manual_seed(0)
    return registries.MODELS.build({"type": "MoteSegmenter", "network": "rdian"}).eval()


def test_a_segmenter_predicts_the_same_mask_as_ours(segmenter):
    batch = packed(with_mask(1), pack=clips.PackImage)
    sample = segmenter.test_step(batch)[0]
    with torch.inference_mode():
        expected = segmenter.model.probability(batch["inputs"][0][None])[0]
        raw = segmenter.model(segmenter.model.normalise(batch["inputs"][0][None]))
    assert 0 < expected.min() < expected.max() < 1
    torch.testing.assert_close(sample.pred_sem_seg.probability, expected, rtol=0, atol=0)
    torch.testing.assert_close(sample.pred_sem_seg.sem_seg, (expected > 0.5).long(), rtol=0, atol=0)
    torch.testing.assert_close(segmenter(batch["inputs"], mode="tensor"), raw)


def test_a_segmenter_is_trained_with_its_own_loss(segmenter):
    batch = packed(with_mask(1), with_mask(2), pack=clips.PackImage)
    frames = torch.stack(batch["inputs"])
    masks = torch.stack([sample.gt_sem_seg.sem_seg for sample in batch["data_samples"]]).float()
    inputs = segmenter.model.normalise(frames)
    expected = segmenter.model.loss(segmenter.model(inputs), masks, inputs)
    assert masks.sum() > 10
    assert segmenter.loss(frames, batch["data_samples"])["loss"].item() == pytest.approx(expected.item())


def test_mmdet_evaluates_a_segmenter(segmenter):
    from mmdet.evaluation import SemSegMetric

    metric = SemSegMetric(iou_metrics=["mIoU"])
    metric.dataset_meta = {"classes": ("background", "target")}
    samples = segmenter.test_step(packed(with_mask(1), pack=clips.PackImage))
    metric.process({}, [sample.to_dict() for sample in samples])
    assert 0 <= metric.evaluate(1)["mIoU"] <= 100


def test_segmenters_need_their_kind_of_network_and_masks(registries):
    with pytest.raises(UsageError, match=r"MoteSegmenter takes rdian, .* not 'tridos'"):
        registries.MODELS.build({"type": "MoteSegmenter", "network": "tridos"})
    with pytest.raises(UsageError, match="image 0 has no mask"):
        packed(square(1), pack=clips.PackImage)


def test_clips_of_a_dataset_have_its_frames_and_targets(registries, tmp_path):
    rendering.write_scene(Scene.random(3, width=64, height=48, frames=8), tmp_path / "clip.mp4")
    layout = {"layout": "coco-video", "root": str(tmp_path), "split": "clip.json"}
    steps = [
        {"type": "MoteRandomFlip"},
        {"type": "MoteRandomCrop", "size": (32, 32)},
        {"type": "PackMoteClip"},
    ]
    dataset = registries.DATASETS.build({"type": "MoteClips", **layout, "stride": 3, "pipeline": steps})
    assert len(dataset) == 3
    assert dataset.metainfo == {"classes": ("target",)}
    row = dataset[2]
    assert row["inputs"].shape == (3, 5, 32, 32)
    sample = row["data_samples"].video_data_samples[0]
    assert (sample.frame_id, sample.ori_video_length, sample.img_id) == (6, 8, 7)
    assert sample.ori_shape == (32, 32)
    assert [one["bbox"] for one in sample.instances] == sample.gt_instances.bboxes.tolist()


def test_crops_and_flips_follow_the_seed_of_numpy():
    found = {"clip": random_clip(1)}
    rows = []
    for seed in (1, 1, 2):
        np.random.seed(seed)
        rows.append(clips.RandomFlip()(clips.RandomCrop(size=(16, 24))(found))["clip"])
    assert rows[0].frames.shape == (5, 24, 16)
    np.testing.assert_array_equal(rows[0].frames, rows[1].frames)
    assert not np.array_equal(rows[0].frames, rows[2].frames)
