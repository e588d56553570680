"""The command reads cameras and raw data, gives the same results for every format, and shows no passwords."""

from __future__ import annotations

import numpy as np
import pytest
import zarr

from datasets.synthesis.rendering import render
from tests.support import stream_servers
from tests.support.outputs import check_consistent, lines, report, scene

FLAGS = ["--source-size", "64x64", "--source-dtype", "uint16le", "--source-rate", "25", "--source-bits", "14"]


@pytest.fixture(scope="module")
def images():
    """16 pictures of 14 bits."""
    return [picture.astype(np.uint16) << 6 for picture, _ in render(scene())]


@pytest.fixture
def run(mote, tmp_path, nano_weights):
    """Runs the command on a source; returns time and detections of each frame."""

    def call(location, name, *flags):
        out = tmp_path / name
        reply = mote(location, "--weights", nano_weights, "--output", out, "--progress", "off", *flags)
        assert reply.code == 0, reply
        assert check_consistent(out) == 16
        assert report(out)["source"]["bit_depth"] == 14
        return [(line["pts"], line["detections"]) for line in lines(out)]

    return call


def test_a_raw_file_and_a_pipe_give_equal_results_and_scaling_changes_them(tmp_path, run, images):
    data = b"".join(image.tobytes() for image in images)
    (tmp_path / "a.raw").write_bytes(data)
    expected = run(tmp_path / "a.raw", "raw", "--source-format", "raw", *FLAGS)
    assert any(detections for _, detections in expected)
    assert [time for time, _ in expected] == [number / 25 for number in range(16)]
    with stream_servers.standard_input(data):
        assert run("-", "pipe", "--source-format", "raw", *FLAGS) == expected
    zarr.create_array(tmp_path / "a.zarr", data=np.stack(images), chunks=(8, 64, 64))
    stored = ("--source-rate", "25", "--source-bits", "14")
    assert run(tmp_path / "a.zarr", "stored", *stored) == expected
    assert run(tmp_path / "a.zarr", "scaled", *stored, "--scaling", "full-range") != expected


def test_the_password_of_an_address_is_in_no_output_and_no_message(
    mote, tmp_path, nano_weights, images, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    secrets = ("sesame", "opensesame")
    query = f"?token={secrets[1]}"
    raw = b"".join(image.tobytes() for image in images)
    with stream_servers.listener(stream_servers.sending(raw)) as port:
        address = f"tcp://user:{secrets[0]}@127.0.0.1:{port}{query}"
        reply = mote(
            *(address, "--weights", nano_weights, "--source-format", "raw", *FLAGS),
            *("--progress", "plain", "--reconnect", "none"),
        )
    assert reply.code == 0, reply
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name == f"127.0.0.1-{port}"
    assert report(folder)["source"]["live"]
    texts = [reply.out, reply.err, *(str(path) for path in folder.iterdir())]
    texts += [path.read_bytes().decode(errors="replace") for path in folder.iterdir()]
    assert len(texts) > 6
    assert not [text for text in texts for secret in secrets if secret in text]


@pytest.mark.parametrize(
    "arguments",
    [
        ["rtsp://user:sesame@127.0.0.1:9/1"],
        ["--video", "rtsp://user:sesame@127.0.0.1:9/1", "rtsp://user:sesame@127.0.0.1:9/2"],
        ["a.mp4", "rtsp://user:sesame@127.0.0.1:9/1"],
        ["http://127.0.0.1:9/a?pwd=sesame"],
        ["other://user:sesame@host/1"],
    ],
    ids=["refused", "two", "too many", "query", "unknown"],
)
def test_errors_about_an_address_do_not_show_its_password(mote, arguments, tmp_path):
    reply = mote(*arguments, "--output", tmp_path / "out")
    assert reply.code in (2, 3)
    assert reply.err.startswith("error: ")
    assert len(reply.err.splitlines()) == 1
    assert "sesame" not in reply.out + reply.err
