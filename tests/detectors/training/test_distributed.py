"""Two processes train as one does, stop at the same step, and notice if the other one dies."""

from __future__ import annotations

import json
import os
import signal
import socket
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as processes

from datasets.synthesis import rendering
from datasets.synthesis.scene import Scene
from detectors.training import detection_loss
from detectors.training.distributed import (
    ProcessGroup,
    SyncBatchNorm,
    convert_sync_batchnorm,
    init_process_group,
    local_device,
    require_clip_per_process,
)
from detectors.training.recipe import Recipe
from detectors.training.trainer import Trainer
from pipeline.config.parsing import build
from pipeline.system.errors import Interrupted, MoteError, UsageError
from pipeline.system.signals import StopRequest

STEPS, STOPPED = 3, 2
BATCH = 3  # odd: one process has one clip, the other has two


def recipe(root: Path, output: Path) -> Recipe:
    """Returns a recipe of a few steps on small frames."""
    table = {
        "data": {"layout": "coco-video", "root": str(root), "train": "clip.json", "val": "clip.json"}
        | {"store": "", "synthetic_share": 0.0},
        # a large eps: with a small one, the sign of a rounding error would decide the sign of a step of Adam
        "optimiser": {"eps": 0.01},
        "schedule": {"steps": STEPS, "batch": BATCH, "crop": [64, 64], "warmup": 1, "precision": "fp32"},
        "record": {"output": str(output), "measure_stride": 6},
    }
    return build(Recipe, table)


@contextmanager
def double_precision():
    """Computes in float64: phases of spectra jump at ±π, which amplifies rounding errors of float32."""
    single = torch.Tensor.float
    torch.Tensor.float = torch.Tensor.double
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.Tensor.float = single
        torch.set_default_dtype(torch.float32)


def train(settings: Recipe, group: ProcessGroup, stop: StopRequest | None = None) -> Trainer:
    trainer = Trainer(settings, torch.device("cpu"), group=group, stop=stop)
    trainer.run()
    return trainer


def normed(x: torch.Tensor, group: ProcessGroup) -> dict[str, torch.Tensor]:
    """Returns the output of a batch norm, its running statistics, and the gradients."""
    network = torch.nn.Sequential(torch.nn.BatchNorm2d(4, momentum=0.3))
    network[0].weight.data = torch.tensor([1.0, 2.0, 0.5, -1.0])
    convert_sync_batchnorm(network, group)
    x = x.clone().requires_grad_()
    y = network(x)
    (y.square() * y).sum().backward()
    group.all_reduce_gradients(network)
    return {"y": y.detach(), "x.grad": x.grad, "weight.grad": network[0].weight.grad, **network.state_dict()}


def pictures() -> torch.Tensor:
    """(3, 4, 5, 6) with means far from 0."""
    return torch.randn(BATCH, 4, 5, 6, generator=torch.Generator().manual_seed(1)) + 10


def work(rank: int, root: Path, output: Path, port: int) -> None:
    """Main function of each of the two processes, which saves its results in a file."""
    torch.set_num_threads(1)
    seen = {}
    os.environ.update(
        RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    with init_process_group(torch.device("cpu")) as group:
        seen["gathered"] = group.all_gather([rank, 10 + rank], torch.device("cpu")).tolist()
    meeting = {"init_method": f"file://{output / 'meeting'}", "timeout": timedelta(seconds=60)}
    dist.init_process_group("gloo", rank=rank, world_size=2, **meeting)
    group = ProcessGroup(rank, 2)
    own = group.shard(BATCH)
    seen["normed"] = normed(pictures()[own.start : own.stop], group)

    settings = recipe(root, output / "two")
    with double_precision():
        try:
            train(settings, group, stop=stop_after(STOPPED) if rank == 1 else None)
        except Interrupted as error:
            seen["interrupted"] = (error.exit_code, str(error))
        dist.barrier()  # the checkpoint must be written before the run is resumed
        seen["model"] = train(settings, group).model.state_dict()

    if rank == 1:
        torch.save(seen, output / "1.pt")
        os._exit(0)  # dies while the other one waits for it
    try:
        group.all_reduce(torch.ones(1))
    except MoteError as error:
        seen["lost"] = str(error)
    torch.save(seen, output / "0.pt")


def stop_after(step: int) -> StopRequest:
    """Returns a request that reports SIGTERM after it has been read `step` times."""

    class Later(StopRequest):
        looks = 0

        @property
        def signal(self):
            self.looks += 1
            return signal.SIGTERM if self.looks > step else None  # once before the first step

        @signal.setter
        def signal(self, _):
            pass

        def check(self):
            pass

    return Later()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    rendering.write_scene(Scene.random(3, width=96, height=64, frames=12), folder / "clip.mp4")
    return folder


@pytest.fixture(scope="module")
def one(root, tmp_path_factory):
    """The folder of a run with one process, and the state of its model."""
    output = tmp_path_factory.mktemp("one")
    with double_precision():
        return output, train(recipe(root, output), ProcessGroup()).model.state_dict()


@pytest.fixture(scope="module")
def two(root, tmp_path_factory):
    """The folder of a run with two processes, and the results of each of them."""
    output = tmp_path_factory.mktemp("processes")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes.spawn(work, (root, output, port), nprocs=2)
    return output / "two", [torch.load(output / f"{rank}.pt", weights_only=False) for rank in (0, 1)]


def rows(output):
    return [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]


def test_values_are_gathered_from_all_processes(two):
    assert [seen["gathered"] for seen in two[1]] == [[[0, 10], [1, 11]]] * 2


@pytest.mark.parametrize("name", ["y", "x.grad"])
def test_batch_norm_of_the_parts_equals_that_of_the_whole_batch(two, name):
    whole = normed(pictures(), ProcessGroup())
    torch.testing.assert_close(
        torch.cat([seen["normed"][name] for seen in two[1]]), whole[name], rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("name", ["weight.grad", "0.running_mean", "0.running_var", "0.num_batches_tracked"])
def test_gradients_and_statistics_of_batch_norm_are_equal_in_all_processes(two, name):
    whole = normed(pictures(), ProcessGroup())
    for seen in two[1]:
        torch.testing.assert_close(seen["normed"][name], whole[name], rtol=1e-4, atol=1e-4)


def test_two_processes_log_the_same_as_one_even_if_stopped_and_resumed(one, two):
    for name in ("loss", "ciou", "objectness", "classes", "norm", "rate"):
        together, alone = ([row[name] for row in rows(folder) if name in row] for folder in (two[0], one[0]))
        assert together == pytest.approx(alone, rel=1e-9), name
        assert len(alone) == STEPS


def test_two_processes_end_with_the_weights_of_one(one, two):
    for seen in two[1]:
        assert seen["model"].keys() == one[1].keys()
        for name, value in one[1].items():
            torch.testing.assert_close(seen["model"][name], value, rtol=1e-7, atol=1e-9, msg=name)


def test_a_signal_to_one_process_stops_all_after_the_same_step(two):
    told = f"interrupted by SIGTERM; step {STOPPED} is saved; run the same command to resume"
    assert [seen["interrupted"] for seen in two[1]] == [(143, told)] * 2


def test_a_dead_process_is_an_error_in_the_others(two):
    assert two[1][0]["lost"].startswith("process 0 of the run lost the others: ")


# One process


def test_a_group_of_one_process_keeps_plain_batch_norms():
    network = torch.nn.Sequential(torch.nn.BatchNorm2d(2))
    convert_sync_batchnorm(network, ProcessGroup())
    assert type(network[0]) is torch.nn.BatchNorm2d


def test_a_synchronised_batch_norm_in_evaluation_mode_equals_the_plain_one():
    plain = torch.nn.BatchNorm2d(4).eval()
    plain.running_mean += 3
    together = SyncBatchNorm.convert(plain, ProcessGroup(0, 2))
    torch.testing.assert_close(together(pictures()), plain(pictures()), rtol=0, atol=0)
    assert together.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize(("count", "size"), [(8, 2), (3, 2), (2, 2), (7, 3)])
def test_shards_cover_a_batch_without_overlap(count, size):
    parts = [ProcessGroup(rank, size).shard(count) for rank in range(size)]
    assert [place for part in parts for place in part] == list(range(count))
    assert min(map(len, parts)) >= 1


def test_a_batch_with_fewer_clips_than_processes_is_refused():
    with pytest.raises(
        UsageError, match=r"schedule.batch = 2 leaves some of 3 processes .*expected 3 or more"
    ):
        require_clip_per_process(2, ProcessGroup(0, 3))


def test_contributions_of_parts_add_up_to_the_loss_of_the_whole_batch():
    generator = torch.Generator().manual_seed(0)
    raw = torch.randn(3, 6, 6, 8, generator=generator)
    boxes = [
        torch.tensor([[20.0, 20.0, 12.0, 9.0]]),
        torch.zeros(0, 4),
        torch.tensor([[40.0, 30.0, 8.0, 8.0]]),
    ]
    labels = [torch.zeros(len(row), dtype=torch.int64) for row in boxes]
    whole = detection_loss.detection_loss(raw, boxes, labels)
    parts = [
        detection_loss.detection_loss(raw[a:b], boxes[a:b], labels[a:b]) for a, b in ((0, 1), (1, 2), (2, 3))
    ]
    assert parts[1].foreground == 0
    assert whole.foreground == sum(part.foreground for part in parts) > 0
    assert float(sum(p.contribution(whole.foreground) for p in parts)) == pytest.approx(
        float(whole.total), rel=1e-6
    )


@pytest.mark.parametrize(
    ("name", "gpus", "several", "expected"),
    [
        ("auto", True, True, "cuda:1"),
        ("cuda", True, True, "cuda:1"),
        ("cuda:0", True, True, "cuda:0"),
        ("auto", False, True, "auto"),
        ("cpu", True, True, "cpu"),
        ("auto", True, False, "auto"),
    ],
)
def test_each_of_several_processes_takes_its_own_gpu(monkeypatch, name, gpus, several, expected):
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2" if several else "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus)
    assert local_device(name) == expected
