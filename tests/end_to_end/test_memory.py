"""Memory, threads and open files of a run do not grow and are released at its end."""

from __future__ import annotations

import gc
import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import pytest

from pipeline.config.parsing import build
from pipeline.config.schema import RunConfig
from pipeline.runner import setup, single, steps
from pipeline.sources import live
from pipeline.structures.frame import Frame
from run_pipeline import parts
from tests.support.outputs import check_consistent

WIDTH, HEIGHT, FRAMES, SETTLED = 96, 64, 400, 200
MEGABYTES = 1e6


def resident() -> int:
    """Returns the resident memory of this process in bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    picture = np.random.default_rng(0).integers(0, 100, (HEIGHT, WIDTH), np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"preset": "ultrafast"})
        stream.width, stream.height = WIDTH, HEIGHT
        for index in range(FRAMES):
            seen = np.roll(picture, index // 3, axis=1)
            seen[20:24, index % 80 : index % 80 + 4] = 255
            frame = av.VideoFrame.from_ndarray(seen, format="gray")
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def configuration(folder, nano_weights, **detector) -> RunConfig:
    detector = {"weights": nano_weights, "conf": 0.2, **detector}
    return build(RunConfig, {"detector": detector, "output": {"folder": str(folder)}})


def alive(kind: type) -> int:
    """Returns the number of live objects of a type."""
    return sum(type(thing) is kind for thing in gc.get_objects())


class Measurements(NamedTuple):
    """Resident memory after every frame; number of live frames every `SETTLED` frames."""

    memory: list[int]
    frames_alive: list[int]


def measure(clip: Path, folder: Path, weights: str) -> Measurements:
    """Runs over a clip and returns the measurements."""
    taken = Measurements([], [])

    class Measured(setup.RunRecord):
        def add(self, result):
            super().add(result)
            taken.memory.append(resident())
            if self.written % SETTLED == 0:
                taken.frames_alive.append(alive(Frame))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setup, "RunRecord", Measured)
        single.run(str(clip), configuration(folder, weights), parts(), progress="off")
    return taken


@pytest.fixture(scope="module")
def measured(tmp_path_factory, long_clip, nano_weights) -> Measurements:
    """The measurements of a run over the long clip, in a process that does nothing else.

    In the process of the tests, megabytes of what others left are returned and taken again at any time.
    """
    if not Path("/proc/self/statm").exists():
        pytest.skip("reading its own memory needs the /proc of Linux")
    folder = tmp_path_factory.mktemp("measured")
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        taken = process.submit(measure, long_clip, folder, nano_weights).result()
    assert check_consistent(folder) == FRAMES
    return taken


def test_the_memory_of_a_run_does_not_grow(measured):
    before = measured.memory[SETTLED - 50 : SETTLED]
    assert max(measured.memory[SETTLED:]) - max(before) < 10 * MEGABYTES


def test_no_more_frames_are_in_memory_than_the_queues_hold(measured):
    most = live.QUEUE_SIZE_WAIT + steps.RESULTS_AHEAD + 6  # one in each stage
    assert len(measured.frames_alive) == FRAMES // SETTLED
    assert min(measured.frames_alive) >= 1
    assert max(measured.frames_alive) <= most


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc of Linux to count open files")
def test_runs_release_their_threads_and_files(tmp_path, clip, nano_weights):
    def process(name):
        single.run(str(clip), configuration(tmp_path / name, nano_weights), parts(), progress="off")
        gc.collect()
        return open_files(), threading.active_count()

    process("first")  # libraries keep some open
    assert process("second") == process("third") == process("fourth")
    assert {thread.name for thread in threading.enumerate()}.isdisjoint({"decode", "detect"})
