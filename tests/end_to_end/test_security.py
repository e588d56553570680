"""Untrusted files run no code, make the program read no other files, and allocate no memory they only claim.

Tests of single formats: pictures and videos in tests/pipeline/sources/test_source_faults.py, zarr stores in
tests/pipeline/sources/test_zarr_array.py, checkpoints in tests/detectors/weights/test_weights.py, addresses
in tests/pipeline/sources/test_streams.py.
"""

from __future__ import annotations

import io
import json
import logging
import os
import pickle
import socket
import struct
import subprocess
import sys
import threading
import zipfile
from contextlib import suppress
from itertools import count, islice

import pytest
import torch

from datasets.layouts.conversion import convert
from datasets.layouts.registry import load_dataset
from detectors.backends.export_folder import GRAPHS, Origin, write_export
from detectors.weights.state_dict import read_state_dict
from pipeline.config.parsing import build
from pipeline.config.schema import RunConfig
from pipeline.sources.opening import open_source
from pipeline.sources.pending import PendingSource
from pipeline.system.errors import SourceError, UsageError, WeightsError
from pipeline.system.redaction import redact, stream_name
from pipeline.system.signals import StopRequest
from tests.conftest import PROJECT_ROOT
from tests.datasets.layouts import dataset_trees
from tests.support import stream_servers
from tests.support.media import grey_frames, write_video

# Weights


class Exploit:
    """Creates a folder when it is unpickled."""

    def __init__(self, place):
        self.place = str(place)

    def __reduce__(self):
        return os.mkdir, (self.place,)


NAMES = (
    "w.pth",
    "w.pt",
    "w.pkl",
    "w.ckpt",
    "w.bin",
    "w",
    "w.safetensors",
    "w.safetensors.pth",
    "W.SAFETENSORS",
)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dump", [pickle.dump, torch.save])
def test_code_in_weights_is_never_run_whatever_their_name(mote, clip, tmp_path, name, dump):
    path, made = tmp_path / name, tmp_path / "made"
    with path.open("wb") as file:
        dump({"state_dict": {"a": Exploit(made)}}, file)
    reply = mote("--video", clip, "--weights", path, "--output", tmp_path / "out")
    assert reply.code == 4
    assert reply.err.startswith(f"error: {path} is not a safe weights file")
    assert reply.err.count("\n") == 1
    assert not made.exists()
    with suppress(Exception):
        torch.load(io.BytesIO(path.read_bytes()), weights_only=False)
    assert made.exists(), "the exploit would have worked"


def test_a_torchscript_program_is_refused_without_a_warning(tmp_path, recwarn):
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(tmp_path / "a.pt"))
    recwarn.clear()
    with pytest.raises(WeightsError, match="is not a safe weights file"):
        read_state_dict(tmp_path / "a.pt")
    assert not recwarn.list


def test_torch_export_programs_are_only_read_with_backend_torch(mote, clip, tmp_path):
    folder = tmp_path / "exported"
    origin = Origin("tridos-nano", "w", "0" * 64, ("target",), enlarge=1.0, parameters=1, width=0.25)
    write_export(dict.fromkeys(GRAPHS, b""), origin, folder, size=(64, 64), kind="torch-export")
    command = ["--video", clip, "--weights", folder, "--output", tmp_path / "out"]
    reply = mote(*command)
    assert reply.code == 4
    assert f"{folder} holds programs of torch, which can run any code: give --backend torch" in reply.err
    assert "cannot be read by torch" in mote(*command, "--backend", "torch").err


def test_a_compressed_checkpoint_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    plain, packed = tmp_path / "plain.pth", tmp_path / "packed.pth"
    torch.save({"state_dict": {"a": torch.zeros(1_000_000)}}, plain)
    assert set(read_state_dict(plain)) == {"a"}
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for part in source.infolist():
            target.writestr(part.filename, source.read(part))
    assert packed.stat().st_size < plain.stat().st_size / 100
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was unpacked"))
    with pytest.raises(WeightsError, match="is not a safe weights file"):
        read_state_dict(packed)


@pytest.mark.parametrize(
    "header",
    [
        struct.pack("<Q", 1 << 62) + b"{}",
        b'{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}',
        b'{"a":' + b"[" * 100_000,
    ],
    ids=["length", "shape", "depth"],
)
def test_an_oversized_safetensors_header_is_refused(tmp_path, header):
    path = tmp_path / "a.safetensors"
    path.write_bytes(header if header[:1] != b"{" else struct.pack("<Q", len(header)) + header)
    with pytest.raises(WeightsError, match="is not a safe weights file: not safetensors"):
        read_state_dict(path)


# Secrets


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        (
            "rtsp://c:554/user=admin&password=sesame&channel=1",
            "rtsp://c:554/user=***&password=***&channel=***",
        ),
        ("rtsp://c/user=admin_password=sesame_channel=1_stream=0.sdp", "rtsp://c/user=***"),
        ("rtsp://c/live;pwd=sesame", "rtsp://c/live;pwd=***"),
        ("http://c/?loginuse=admin&loginpas=sesame", "http://c/?loginuse=***&loginpas=***"),
        ("HTTP://u:ses@me/x@c/y", "HTTP://c/y"),
    ],
)
def test_passwords_are_masked_in_every_form_of_address(address, shown):
    assert redact(address) == shown
    assert "sesame" not in stream_name(address)


def test_log_messages_about_a_lost_camera_contain_no_password(caplog):
    number = count()

    def serve(connection) -> None:
        if next(number) != 1:
            connection.sendall(grey_frames(1)[0].tobytes())
        connection.shutdown(socket.SHUT_RDWR)

    table = {"source": {"format": "raw", "size": "96x64", "dtype": "uint8"}}
    table["live"] = {"reconnect": "forever", "backoff": 0.01, "backoff_cap": 0.01}
    with caplog.at_level(logging.DEBUG), stream_servers.listener(serve) as port:
        address = f"tcp://user:sesame@127.0.0.1:{port}/?token=sesame"
        with PendingSource(address, build(RunConfig, table), StopRequest()).wait() as source:
            assert len(list(islice(source, 2))) == 2
    assert f"tcp://127.0.0.1:{port}" in caplog.text
    assert "connecting again" in caplog.text
    assert "sesame" not in caplog.text


# Paths


@pytest.mark.parametrize(
    "path", ["../a.mp4", "/etc/a.mp4", "b/../../a.mp4", "..\\a.mp4", "C:/a.mp4", "..", "a\0.mp4"]
)
def test_paths_in_annotations_must_be_below_the_root(tmp_path, path):
    dataset_trees.coco_video(tmp_path / "data", file_name=path)
    with pytest.raises(UsageError, match="is not below the root of the dataset"):
        load_dataset("coco-video", tmp_path / "data", "gt.json")
    table = json.loads((dataset_trees.coco_video(tmp_path / "data") / "gt.json").read_text())
    table["images"][1]["file_name"] = path
    dataset_trees.write_json(tmp_path / "data" / "gt.json", table)
    with pytest.raises(UsageError, match="is not below the root of the dataset"):
        load_dataset("coco-video", tmp_path / "data", "gt.json")


@pytest.mark.parametrize("path", ["../0.bmp", "images/../../0.bmp", "/x/images/../../0.bmp"])
def test_paths_in_lists_must_be_below_the_root(tmp_path, path):
    dataset_trees.write_image(tmp_path / "0.bmp")
    root = dataset_trees.frame_lists(tmp_path / "data")
    dataset_trees.write_text(root / "coco_train_DAUB.txt", f"{path} 1,2,9,10,0")
    with pytest.raises(UsageError, match="is not below the root of the dataset"):
        load_dataset("daub", root, "train")


@pytest.mark.parametrize("key", ["imDir", "video"])
@pytest.mark.parametrize("path", ["../../../other", "/etc"])
def test_paths_in_seqinfo_must_be_below_the_root(tmp_path, key, path):
    root = dataset_trees.mot(tmp_path / "data")
    dataset_trees.write_image(tmp_path / "other" / "1.png")
    dataset_trees.write_text(
        root / "train" / "walk" / "seqinfo.ini", "[Sequence]", "imWidth=32", "imHeight=24", f"{key}={path}"
    )
    with pytest.raises(UsageError, match=r"seqinfo\.ini: .* is not below the root of the dataset"):
        load_dataset("mot", root, "train")


@pytest.mark.parametrize("name", ["..", ".", "a\0b"])
@pytest.mark.parametrize("to", ["mot", "masks"])
def test_sequence_names_cannot_lead_a_conversion_out_of_its_folder(tmp_path, name, to):
    root = dataset_trees.coco_video(tmp_path / "data", name=name)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match="which no file can be"):
        convert(load_dataset("coco-video", root, "gt.json"), to, tmp_path / "new" / "out")
    assert [path for path in sorted(tmp_path.rglob("*")) if path not in before] == [tmp_path / "new"]


def test_a_converted_dataset_only_names_files_in_its_folder(tmp_path):
    root = dataset_trees.coco_video(tmp_path / "data")
    write_video(root / "walk.mp4", grey_frames(3, 24, 32))
    dataset = load_dataset("coco-video", dataset_trees.coco_video(root, file_name="walk.mp4"), "gt.json")
    convert(dataset, "coco-video", tmp_path / "new" / "train.json")
    convert(dataset, "mot", tmp_path / "mot")
    for again in (
        load_dataset("coco-video", tmp_path / "new", "train.json"),
        load_dataset("mot", tmp_path / "mot", "."),
    ):
        (record,) = again.records
        assert ".." not in record.file_name
        with open_source(again.root / record.file_name) as source:
            assert len(list(source)) == 3


def test_a_local_playlist_opens_no_connection_and_no_other_file(tmp_path):
    video = write_video(tmp_path / "secret.ts", grey_frames(3))
    connected = threading.Event()
    with stream_servers.listener(lambda connection: connected.set()) as port:
        texts = {
            "http.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nhttp://127.0.0.1:{port}/a.ts\n#EXT-X-ENDLIST\n",
            "tcp.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\ntcp://127.0.0.1:{port}\n#EXT-X-ENDLIST\n",
            "list.ffconcat": f"ffconcat version 1.0\nfile {video}\n",
            "up.ffconcat": f"ffconcat version 1.0\nfile ../{tmp_path.name}/{video.name}\n",
        }
        for name, text in texts.items():
            for path in (tmp_path / name, tmp_path / f"{name}.mp4"):
                path.write_text(text)
                with pytest.raises(SourceError):
                    open_source(path)
        assert not connected.wait(0.2)


# Sizes


CLAIMS = """
import resource, sys
from pathlib import Path
from pipeline.system.errors import MoteError
from pipeline.sources.opening import open_source
from pipeline.structures.coco_tables import load_coco

size = int(next(line for line in open("/proc/self/status") if line.startswith("VmSize")).split()[1]) << 10
resource.setrlimit(resource.RLIMIT_AS, (size + (256 << 20),) * 2)
folder = Path(sys.argv[1])
for path in sorted(folder.iterdir()):
    try:
        if path.suffix == ".json":
            load_coco(path)
        elif path.suffix == ".bin":
            open_source(path, format="raw", size="100000x100000", dtype="uint16le")
        else:
            list(open_source(path))
    except MoteError as error:
        print(path.name, "refused" in str(error), str(error).count("\\n"))
"""


def tiff_of_two_pages() -> bytes:
    """A TIFF whose first page has one pixel and whose second claims 12 000 x 12 000."""

    def page(at: int, side: int, then: int) -> bytes:
        rows = [(256, 4, 1, side), (257, 4, 1, side), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
        rows += [(273, 4, 1, at), (278, 4, 1, side), (279, 4, 1, 1)]
        fields_of = b"".join(struct.pack("<HHII", *row) for row in rows)
        return struct.pack("<H", len(rows)) + fields_of + struct.pack("<I", then)

    first = page(4, 1, 0)
    return b"II*\0" + struct.pack("<I", 16) + b"\0" * 8 + page(8, 1, 16 + len(first)) + page(8, 12_000, 0)


def test_files_that_claim_large_sizes_are_refused_in_one_line_without_allocation(tmp_path):
    folder = tmp_path / "claims"
    folder.mkdir()
    for side in (12_000, 100_000):
        (folder / f"{side}.y4m").write_bytes(
            b"YUV4MPEG2 W%d H%d F30:1 Cmono\nFRAME\n" % (side, side) + b"\0" * 999
        )
    (folder / "a.bin").write_bytes(b"\0" * 999)
    (folder / "b.tif").write_bytes(tiff_of_two_pages())
    (folder / "c.json").write_text('{"images": ' + "[" * 1_000_000)
    (folder / "d.json").write_text('{"images": ' + '{"a": ' * 1_000_000)
    (folder / "e.json").write_text('{"images": [{"id": ' + "9" * 1_000_000 + "}]}")
    environment = {
        **os.environ,
        "PYTHONPATH": str(PROJECT_ROOT),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", CLAIMS, str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    rows = [row.split() for row in done.stdout.splitlines()]
    assert [name for name, *_ in rows] == sorted(path.name for path in folder.iterdir())
    assert {lines for *_, lines in rows} == {"0"}
    assert {name for name, refused, _ in rows if refused == "True"} == {"12000.y4m", "a.bin", "b.tif"}


def test_deeply_nested_ground_truth_is_refused_in_one_line(mote, clip, tmp_path):
    (tmp_path / "deep.json").write_text("[" * 200_000)
    reply = mote("--video", clip, "--annotations", tmp_path / "deep.json", "--output", tmp_path / "out")
    assert reply.code == 2
    assert "deep.json are not JSON" in reply.err
    assert reply.err.count("\n") == 1
