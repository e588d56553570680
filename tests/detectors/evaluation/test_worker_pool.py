"""Worker processes answer in order and are always terminated."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from detectors.evaluation.worker_pool import map_in_order
from pipeline.system.errors import MoteError, SourceError
from tests.conftest import PROJECT_ROOT


def answer(task: tuple[str, int]) -> int:
    """The function of the workers; a task is an action and a number."""
    action, number = task
    if action == "interrupt":
        os.kill(os.getpid(), signal.SIGINT)
    elif action == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "sleep":
        time.sleep(number)
    elif action == "refuse":
        raise SourceError("clip.mp4 cannot be read")
    return number


class Interrupted:
    """A task that raises SIGINT while it is pickled and swallows the exception, as copyreg does."""

    def __reduce__(self):
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        return tuple, (("return", 0),)


def save_copies(clip: Path, folder: Path, *, count: int) -> None:
    """Writes a dataset of `count` copies of a video."""
    shutil.copy(clip, folder / "clip.mp4")
    table = json.loads(clip.with_suffix(".json").read_text())
    video, images, length = table["videos"][0], table["images"], len(table["images"])
    table["videos"] = [{**video, "id": n + 1, "name": f"copy {n}"} for n in range(count)]
    table["images"] = [
        {**image, "id": n * length + place + 1, "video_id": n + 1}
        for n in range(count)
        for place, image in enumerate(images)
    ]
    table["annotations"] = []
    (folder / "copies.json").write_text(json.dumps(table))


def test_answers_are_in_order_and_workers_ignore_ctrl_c():
    tasks = [("sleep", 1), ("interrupt", 2), ("return", 3), ("interrupt", 4)]
    assert list(map_in_order(answer, tasks, workers=2)) == [1, 2, 3, 4]
    assert not multiprocessing.active_children()


def test_workers_are_terminated_if_the_iteration_is_closed():
    found = map_in_order(answer, [("return", 1), ("sleep", 600)], workers=2)
    assert next(found) == 1
    assert len(multiprocessing.active_children()) == 2
    found.close()
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(
    ("action", "workers", "kind", "message"),
    [
        ("refuse", 2, SourceError, r"^clip\.mp4 cannot be read$"),
        ("die", 1, MoteError, r"^a process of --workers has ended with exit code -9; "),
    ],
)
def test_an_error_in_one_worker_terminates_all(action, workers, kind, message):
    with pytest.raises(kind, match=message):
        list(map_in_order(answer, [(action, 0), ("sleep", 600)], workers=workers))
    assert not multiprocessing.active_children()


def test_ctrl_c_is_not_lost_while_a_task_is_pickled():
    code = """
import multiprocessing
from detectors.evaluation.worker_pool import map_in_order
from tests.detectors.evaluation.test_worker_pool import Interrupted, answer
try:
    list(map_in_order(answer, [Interrupted(), ("return", 1)], workers=2))
except KeyboardInterrupt:
    print("interrupted", multiprocessing.active_children())
"""  # in a process of its own, since the signal reaches all libraries that other tests have loaded
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT_ROOT, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("interrupted []\n", 0), done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="children are looked up in /proc")
def test_ctrl_c_while_workers_start_is_reported_in_one_line(clip, nano_weights, tmp_path):
    save_copies(clip, tmp_path, count=200)  # takes minutes if it is not interrupted
    command = [sys.executable, "-m", "detectors.evaluate", nano_weights, "--root", str(tmp_path)]
    command += ["--dataset", "coco-video", "--split", "copies.json", "--device", "cpu", "--workers", "2"]
    options = {"cwd": PROJECT_ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, start_new_session=True, **options) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        deadline = time.monotonic() + 120
        while len(children.read_text().split()) < 2:  # the first one is the resource tracker
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err.splitlines()[-1] == "error: interrupted by SIGINT"
    assert "Traceback" not in err
