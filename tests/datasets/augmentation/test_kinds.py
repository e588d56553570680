"""Clips of several kinds are drawn by their shares and resized to the sizes asked for."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from datasets.augmentation.kinds import DataKind, KindSampler
from datasets.sequences.moving_stills import animate_still
from pipeline.system.errors import UsageError
from tests.support import training_runs
from tests.support.sequences import LENGTH, PLAIN, sequence_of


def pool(label, *, box=(4, 5, 12, 13), count=2):
    """Sequences whose targets have a label of their own."""
    found = [sequence_of([[box]] * 6, seed=n, name=f"{label}-{n}") for n in range(count)]
    return [replace(s, labels=tuple(np.full_like(row, label) for row in s.labels)) for s in found]


def sampler(*pools, sized=0.0, sizes=(4.0, 32.0), seed=3, margin=0.0, augment=PLAIN):
    more = {"sized": sized, "sizes": sizes, "margin": margin}
    return KindSampler(pools, length=LENGTH, seed=seed, augment=augment, **more)


def clips(made, count=300):
    return [made.clip(number, 0, crop_size=(32, 32)) for number in range(count)]


def test_kinds_are_drawn_by_their_shares():
    made = sampler((0.5, pool(0)), (0.0, []), (0.3, pool(1, count=1)), (0.2, pool(2, count=7)))
    labels = np.concatenate([clip.labels for clip in clips(made)])
    shares = np.bincount(labels, minlength=3) / len(labels)
    np.testing.assert_allclose(shares, [0.5, 0.3, 0.2], atol=0.08)


def test_targets_have_the_sizes_asked_for():
    made = sampler((1.0, pool(0)), sized=1.0, sizes=(3.0, 10.0))
    boxes = np.concatenate([clip.boxes for clip in clips(made)])
    inside = (boxes > 0).all(axis=1) & (boxes < 32).all(axis=1)  # others are cut off at the border
    sizes = np.sqrt((boxes[inside, 2:] - boxes[inside, :2]).prod(axis=1))
    assert 2.5 < sizes.min() < 3.5
    assert 9 < sizes.max() < 11
    assert abs(np.mean(sizes < np.sqrt(30)) - 0.5) < 0.12  # log-uniform


@pytest.mark.parametrize("sized", [0.0, 1.0])
def test_boxes_leave_the_same_margin_at_every_size(sized):
    resized = replace(PLAIN, scale=(0.5, 0.5))
    made = sampler((1.0, pool(0)), sized=sized, sizes=(2.0, 2.0), margin=2.0, augment=resized)
    boxes = np.concatenate([clip.boxes for clip in clips(made, 20)])
    inside = (boxes > 0).all(axis=1) & (boxes < 32).all(axis=1)
    # of 8 pixels 4 are the target's, which becomes half as large
    np.testing.assert_allclose((boxes[:, 2:] - boxes[:, :2])[inside], 6, atol=0.1)
    assert inside.any()


def test_without_sizes_clips_keep_their_scale():
    made = sampler((1.0, pool(0)))
    boxes = np.concatenate([clip.boxes for clip in clips(made, 20)])
    assert ((boxes[:, 2:] - boxes[:, :2]).max(axis=0) == 8).all()


def test_a_clip_depends_on_seed_and_place_alone():
    first, again = (sampler((0.5, pool(0)), (0.5, pool(1)), sized=0.5) for _ in range(2))
    one, other = first.clip(7, 2, crop_size=(32, 32)), again.clip(7, 2, crop_size=(32, 32))
    np.testing.assert_array_equal(one.frames, other.frames)
    np.testing.assert_array_equal(one.boxes, other.boxes)


def test_an_empty_kind_with_a_share_is_refused():
    with pytest.raises(UsageError, match="a share of clips is asked from a set of sequences that is empty"):
        sampler((0.5, pool(0)), (0.5, []))


def test_shares_that_do_not_add_up_are_refused():
    with pytest.raises(UsageError, match=r"add up to 0\.9, expected 1"):
        sampler((0.5, pool(0)), (0.4, pool(1)))


@pytest.mark.parametrize(("key", "value"), [("share", 1.5), ("margin", -1)])
def test_a_kind_refuses_numbers_that_mean_nothing(key, value):
    with pytest.raises(ValueError, match=f"{key} = {value}, expected"):
        DataKind("masks", "x", **{key: value})


def test_stills_in_motion_can_be_sampled():
    picture, mask = np.full((48, 48), 60, np.uint8), np.zeros((48, 48), bool)
    mask[20:23, 30:33] = True
    made = sampler((1.0, [animate_still("a", picture, mask, seed=1)]))
    clip = made.clip(0, 0, crop_size=(32, 32))
    assert clip.frames.shape == (LENGTH, 32, 32)


# Training


def kinds(folder, **more):
    table = {"layout": "masks", "root": str(folder), "split": "all.txt", "share": 0.5, "moving": True}
    return {"data.kinds": {"stills": table | more}, "data.sized": 0.5, "schedule.whole_share": 0.0}


def run(tmp_path, settings):
    """Train two steps on a clip and on moving stills; returns the exit code."""
    stills = training_runs.write_masks(tmp_path / "stills", size=(64, 64))
    training_runs.write_clip(tmp_path)
    settings = kinds(stills, **settings)
    config = tmp_path / "more.toml"
    table = settings.pop("data.kinds")["stills"]
    lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
    config.write_text(f"[data.kinds.stills]\n{lines}")
    return training_runs.run(tmp_path, tmp_path / "run", 2, config=config, **settings)


def test_a_run_learns_from_moving_stills_too(tmp_path):
    assert run(tmp_path, {}) == 0
    assert len(training_runs.losses(tmp_path / "run")) == 2


def test_a_kind_with_an_unknown_key_is_refused(tmp_path, capsys):
    assert run(tmp_path, {"weight": 2}) == 2
    assert "data.kinds.stills.weight" in training_runs.complaint(capsys)


def test_shares_beyond_one_are_refused(tmp_path, capsys):
    assert run(tmp_path, {"share": 0.9}) == 2
    complaint = training_runs.complaint(capsys)
    assert complaint == "the shares of data.kinds and data.synthetic_share add up to more than 1"


def test_stills_without_masks_cannot_move(tmp_path, capsys):
    (tmp_path / "other").mkdir()
    training_runs.write_clip(tmp_path / "other")
    where = {"layout": "coco-video", "root": str(tmp_path / "other"), "split": "clip.json"}
    assert run(tmp_path, where) == 2
    assert "has no mask, which stills in motion need" in training_runs.complaint(capsys)
