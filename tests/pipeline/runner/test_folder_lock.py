"""Two runs never write to one folder: the second is refused, and the first goes on undisturbed."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from pipeline import recover
from pipeline.sinks.base import Sinks
from pipeline.sinks.folders import prepare_folders
from pipeline.sinks.rotating import find_rotated_files
from pipeline.system.errors import OutputError
from pipeline.system.files import atomic_write
from tests.support.interrupted_runs import assert_same, interrupted_copy
from tests.support.outputs import check_consistent, report
from tests.support.rotated_runs import records


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def meanwhile(monkeypatch):
    """Calls a function once, after five frames of the run that is then going; returns what it returned."""

    def arrange(function, *, folder):
        answers = []
        write = Sinks.write

        def writing(self, result):
            write(self, result)
            if result.frame.index == 5 and not answers:
                before = contents(folder)
                answers.append("under way")
                answers[0] = function()
                assert contents(folder) == before

        monkeypatch.setattr(Sinks, "write", writing)
        return answers

    return arrange


@pytest.fixture
def arguments(clip, nano_weights):
    return (clip, "--weights", nano_weights, "--conf", 0.2, "--progress", "off")


@pytest.mark.parametrize("more", [[], ["--overwrite"], ["--overwrite", "--rotate-every", "1h"]])
def test_a_second_run_into_the_folder_of_a_run_is_refused(
    mote, arguments, clip, whole, tmp_path, meanwhile, more
):
    folder = tmp_path / "out"
    answers = meanwhile(lambda: mote(*arguments, "--output", folder, *more), folder=folder)
    first = mote(*arguments, "--output", folder, "--annotations", clip.with_suffix(".json"))
    (second,) = answers
    assert second.code == 5
    assert second.err == (f"error: cannot write {folder}: another run writes to it; use another --output\n")
    assert (first.code, first.err) == (0, "")
    assert_same(folder, whole)
    assert check_consistent(folder) == 16


def test_a_second_run_is_refused_while_files_rotate(mote, arguments, tmp_path, meanwhile):
    folder = tmp_path / "out"
    answers = meanwhile(lambda: mote(*arguments, "--output", folder, "--overwrite"), folder=folder)
    assert mote(*arguments, "--output", folder, "--rotate-size", "6kB").code == 0
    assert (answers[0].code, answers[0].err.count("\n")) == (5, 1)
    frames = [line["frame"] for files in find_rotated_files(folder) for line in records(files)]
    assert frames == list(range(16))


def test_a_run_over_several_sources_is_refused_as_a_whole(mote, arguments, clip, whole, tmp_path, meanwhile):
    """One of its folders is in use: the other one, which holds an earlier run, is not touched either."""
    other = tmp_path / "other.mp4"
    other.write_bytes(clip.read_bytes())
    out = tmp_path / "out"
    assert mote(other, *arguments[1:], "--output", out / "other").code == 0
    both = ("--video", other, "--video", *arguments)
    answers = meanwhile(lambda: mote(*both, "--output", out, "--overwrite"), folder=out)
    truth = ("--annotations", clip.with_suffix(".json"))
    assert mote(*arguments, *truth, "--output", out / "clip").code == 0
    assert (answers[0].code, answers[0].err.count("\n")) == (5, 1)
    assert f"cannot write {out / 'clip'}: another run writes to it" in answers[0].err
    assert_same(out / "clip", whole)
    assert report(out / "other")["state"] == "complete"


def test_the_folders_of_a_run_over_several_sources_are_locked(mote, arguments, clip, tmp_path, meanwhile):
    other = tmp_path / "other.mp4"
    other.write_bytes(clip.read_bytes())
    out = tmp_path / "out"
    refused = []

    def second():
        for name in ("clip", "other"):
            with pytest.raises(OutputError, match="another run writes to it"):
                prepare_folders([out / name], ExitStack(), overwrite=True, sources=[])
            refused.append(name)

    meanwhile(second, folder=tmp_path / "nothing")
    assert mote("--video", other, "--video", *arguments, "--output", out).code == 0
    assert refused == ["clip", "other"]
    assert [check_consistent(out / name) for name in ("clip", "other")] == [16, 16]


@pytest.mark.parametrize("rotation", [[], ["--rotate-every", "1h"]])
def test_a_run_that_is_going_is_neither_recovered_nor_resumed(
    mote, arguments, tmp_path, meanwhile, capsys, rotation
):
    folder = tmp_path / "out"

    def second():
        code = recover.main([str(folder)])
        return (code, capsys.readouterr().err), mote(*arguments, "--output", folder, "--resume")

    answers = meanwhile(second, folder=folder)
    assert mote(*arguments, "--output", folder, *rotation).code == 0
    recovered, resumed = answers[0]
    message = f"error: the run in {folder} is still going: wait for its end, or stop it first\n"
    assert recovered == (2, message)
    assert (resumed.code, resumed.err) == (2, message)


def test_a_run_that_is_resumed_is_locked(mote, arguments, clip, whole, tmp_path, meanwhile):
    folder = interrupted_copy(whole, tmp_path / "out", after=9)
    answers = meanwhile(lambda: mote(*arguments, "--output", folder, "--overwrite"), folder=folder)
    truth = ("--annotations", clip.with_suffix(".json"))
    assert mote(*arguments, *truth, "--output", folder, "--resume").code == 0
    assert (answers[0].code, answers[0].err.count("\n")) == (5, 1)
    assert_same(folder, whole)


def test_the_folder_is_free_again_after_a_run_that_failed(mote, arguments, tmp_path, monkeypatch):
    folder = tmp_path / "out"

    def failing(self, result):
        raise OutputError("cannot write: a fault")

    with monkeypatch.context() as patch:
        patch.setattr(Sinks, "write", failing)
        assert mote(*arguments, "--output", folder).code == 5
    assert mote(*arguments, "--output", folder, "--overwrite").code == 0


def test_the_message_about_a_missing_file_does_not_ask_for_a_folder_that_is_there(tmp_path):
    with pytest.raises(OutputError) as caught, atomic_write(tmp_path / "detections.json"):
        pass  # the temporary file is missing, as if another program had removed it
    assert "create the folder first" not in str(caught.value)
    assert str(caught.value).startswith(f"cannot write {tmp_path / 'detections.json'}: No such file")
