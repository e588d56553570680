"""Corrupted files end in documented errors; regression tests of the faults that fuzzing has found."""

from __future__ import annotations

import json
import resource
import struct
import time
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import zarr
from PIL import Image
from safetensors.torch import save_file

from datasets.layouts import registry
from detectors.weights import restore, state_dict
from pipeline.config.parsing import build, load_toml, parse_setting
from pipeline.config.schema import RunConfig
from pipeline.evaluation.segmentation.map_files import read_map
from pipeline.runner import recovery
from pipeline.sources.opening import open_source
from pipeline.system.errors import MoteError, SourceError, SourceLost, UsageError, WeightsError
from tests.faults import fuzz, mutants, run_folders
from tests.faults.mutants import Seed
from tests.faults.texts import truth_table
from tests.support.media import grey_frames

EXAMPLES = {
    "config": 20,
    "coco": 20,
    "mot": 40,
    "zarr": 40,
    "weights": 12,
    "image": 60,
    "masks": 40,
    "video": 40,
    "run": 40,
}


@pytest.mark.parametrize("target", fuzz.TARGETS)
def test_corrupted_files_end_in_documented_errors(tmp_path, target):
    outcomes, count = Counter(), EXAMPLES[target]
    with fuzz.bounded():
        fuzz.campaign(target, outcomes, number=0, examples=count, folder=tmp_path / "current")
    assert outcomes.total() == count
    refused = sum(times for outcome, times in outcomes.items() if "Error: " in outcome)
    assert 0 < refused < count


@pytest.mark.parametrize("target", fuzz.TARGETS)
def test_valid_files_are_accepted(tmp_path, target):
    refused = []
    for seed in fuzz.TARGETS[target]():
        outcome = fuzz.execute(seed, False, [], tmp_path / "current", fuzz.LIMIT)
        refused += [outcome] if "Error: " in outcome else []
    # weights with few tensors are read completely and then refused by the network
    assert all("not for this" in outcome for outcome in refused)
    assert len(refused) == (2 if target == "weights" else 0)


# The fuzzer finds faults


def faulty(monkeypatch, read):
    """Registers a target of one small file and its reader."""
    monkeypatch.setitem(fuzz.TARGETS, "faulty", lambda: [Seed({"a.json": b'{"n": 1}'}, mutants.whole, read)])


def search(tmp_path, **options):
    with fuzz.bounded():
        fuzz.campaign("faulty", Counter(), number=0, examples=200, folder=tmp_path / "current", **options)


def test_an_undocumented_error_is_found_and_minimised(tmp_path, monkeypatch):
    def read(path):
        try:
            number = json.loads(path.read_bytes())["n"]
        except Exception as error:
            raise UsageError("it is damaged") from error
        return f"{number + 1}"

    faulty(monkeypatch, read)
    with pytest.raises(fuzz.Failure, match="TypeError"):
        search(tmp_path)
    left = json.loads((tmp_path / "current/a.json").read_bytes())
    assert list(left) == ["n"]
    assert not isinstance(left["n"], (int, float))


def test_an_endless_reader_is_found(tmp_path, monkeypatch):
    def read(path):
        try:
            json.loads(path.read_bytes())
        except ValueError:
            while True:
                time.sleep(0.01)
        return "read"

    faulty(monkeypatch, read)
    with pytest.raises(fuzz.Failure, match=r"it takes longer than 0\.3 s"):
        search(tmp_path, limit=0.3)


def test_a_reader_that_exceeds_the_memory_limit_is_found(tmp_path, monkeypatch):
    faulty(monkeypatch, lambda path: str(np.zeros(8 * fuzz.MEMORY, np.uint8).size))
    with pytest.raises(fuzz.Failure, match="MemoryError"):
        search(tmp_path, simplify=False)


def test_an_error_of_several_lines_is_found(tmp_path, monkeypatch):
    class Talkative(MoteError):
        def __str__(self):
            return "one line\nand another"

    def read(path):
        raise Talkative

    faulty(monkeypatch, read)
    with pytest.raises(fuzz.Failure, match="an error of several lines"):
        search(tmp_path, simplify=False)


# Regression tests

DIGITS = "9" * 5000
"""More digits than Python converts to an integer."""


@pytest.mark.parametrize(
    "text",
    [
        f"[live]\nqueue = {DIGITS}",
        f"[tracker.options]\na = {'[' * 5000}",
        '[source]\nsize = "é\\n1"',
    ],
    ids=["digits", "depth", "lines"],
)
def test_an_oversized_configuration_is_refused_in_one_line(tmp_path, text):
    path = tmp_path / "a.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        build(RunConfig, load_toml(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [DIGITS, "[" * 5000], ids=["digits", "depth"])
def test_an_oversized_setting_is_a_string(value):
    assert parse_setting(f"a.b={value}") == (["a", "b"], value)


def change(name, key, value):
    def corrupt(table):
        table[name][0][key] = value

    return corrupt


@pytest.mark.parametrize(
    ("corrupt", "message"),
    [
        (change("images", "frame_id", 10**12), "has frames up to number 1000000000001"),
        (change("images", "frame_id", -1), "no valid 'frame_id'"),
        (change("images", "video_id", [1]), "no valid 'video_id'"),
        (change("images", "width", "32"), "no valid 'width'"),
        (change("videos", "file_name", ["clip.mp4"]), "no valid 'file_name'"),
        (change("videos", "name", 5), "no valid 'name'"),
        (change("videos", "fps", float("inf")), "no valid 'fps'"),
    ],
)
def test_annotations_with_invalid_values_are_refused(tmp_path, corrupt, message):
    table = truth_table()
    corrupt(table)
    (tmp_path / "a.json").write_text(json.dumps(table))
    with pytest.raises(UsageError, match=message):
        registry.load_dataset("coco-video", tmp_path, "a.json")


@pytest.mark.parametrize("key", ["name", "supercategory"])
def test_names_of_categories_that_are_no_texts_change_nothing(tmp_path, key):
    table = truth_table()
    table["categories"][0][key] = ["target"]
    (tmp_path / "a.json").write_text(json.dumps(table))
    assert registry.load_dataset("coco-video", tmp_path, "a.json").box_count == len(table["annotations"])


def test_annotations_with_a_number_of_thousands_of_digits_are_refused(tmp_path):
    (tmp_path / "a.json").write_text(f'{{"images": {DIGITS}}}')
    with pytest.raises(UsageError, match="are not JSON: Exceeds the limit"):
        registry.load_dataset("coco-video", tmp_path, "a.json")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1,1,4,5,6,7,1,1000000000,1", "class 1000000000 is used; up to 10000 classes are read"),
        ("1000000000000,1,4,5,6,7,1,1,1", "sequences of up to 1000000 are read"),
        ("1,1e300,4,5,6,7,1,1,1", "line 1: '1,1e300,4,5,6,7,1,1,1' is not frame"),
        ("1,1,4,5,1e300,7,1,1,1", "line 1: '1,1,4,5,1e300,7,1,1,1' is not frame"),
    ],
)
def test_rows_with_oversized_values_are_refused(tmp_path, row, message):
    (tmp_path / "gt").mkdir()
    (tmp_path / "gt/gt.txt").write_text(row)
    (tmp_path / "seqinfo.ini").write_text("[Sequence]\nvideo=a.mp4\nimWidth=32\nimHeight=24\n")
    with pytest.raises(UsageError, match=message):
        registry.load_dataset("mot", tmp_path, ".")


def test_an_impossible_folder_of_pictures_is_missing(tmp_path):
    (tmp_path / "gt").mkdir()
    (tmp_path / "gt/gt.txt").write_text("1,1,4,5,6,7,1,1,1")
    (tmp_path / "seqinfo.ini").write_text(f"[Sequence]\nimDir={DIGITS}\n")
    with pytest.raises(SourceError, match="is missing; the images of the sequence are expected there"):
        registry.load_dataset("mot", tmp_path, ".")


@pytest.mark.parametrize("name", [f"a{DIGITS}.png", f"{'a' * 5000}2.png"], ids=["digits", "letters"])
def test_an_impossible_file_name_in_a_list_is_refused(tmp_path, name):
    (tmp_path / "list.txt").write_text(name)
    with pytest.raises(MoteError):
        registry.load_dataset("frame-list", tmp_path, "list.txt")


def test_a_scalar_tensor_instead_of_a_vector_is_refused(tmp_path):
    save_file({"head.cls_preds.0.bias": torch.tensor(1.0)}, tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match="is not for this"):
        restore.restore_network("tridos-nano", str(tmp_path / "a.safetensors"))


@pytest.mark.parametrize("options", [{"num_classes": 2**31}, {"num_classes": 2**63}, {"width": 64.0}])
def test_weights_with_oversized_network_options_are_refused(tmp_path, options):
    state = {"head.cls_preds.0.bias": torch.zeros(1)}
    metadata = {"recipe": {"model": {"name": "tridos-nano", "options": options}}}
    state_dict.save(state, tmp_path / "a.safetensors", metadata=metadata)
    with fuzz.bounded(), pytest.raises((WeightsError, UsageError), match=r"is not for this|cannot build"):
        restore.restore_network("tridos-nano", str(tmp_path / "a.safetensors"))


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("source", "width", None),
        ("source", "height", 10**12),
        ("source", "rate", "1e999999999"),
        ("source", "rate", 30),
        ("source", "channels", [3]),
        ("detector", "classes", None),
        (None, "annotations", 7),
        (None, "segmenters", [None]),
        (None, "frames", []),
    ],
)
def test_a_record_of_a_run_with_invalid_values_is_refused_by_recovery(tmp_path, section, key, value):
    run_folders.write_run(tmp_path)
    table = json.loads((tmp_path / "run.json").read_text())
    (table[section] if section else table)[key] = value
    (tmp_path / "run.json").write_text(json.dumps(table))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(UsageError, match="is not the record of a run"):
        recovery.recover(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


MASK = {"segmenter": "a", "score": 1.0, "rle": {"size": [1, 1], "counts": "1"}}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("frame", 10**30),
        ("pts", "1e999999999"),
        ("timings_ms", {"decode": "1"}),
        ("warmup", None),
        ("masks", [{"segmenter": "a", "score": 1, "bbox": [0, 0, 1, 1]}]),
        ("masks", [{"rle": {"size": [10**9, 10**9], "counts": "0"}}]),
        ("masks", [{**MASK, "bbox": [0, 0, 1e308, 1]}]),
    ],
)
def test_a_line_with_invalid_values_is_refused_by_recovery(tmp_path, key, value):
    run_folders.write_run(tmp_path)
    path = tmp_path / "results.jsonl"
    first, *others = path.read_text().splitlines(keepends=True)
    path.write_text("".join([json.dumps({**json.loads(first), key: value}) + "\n", *others]))
    with pytest.raises(UsageError, match=r"results.jsonl, line 1 is not a result"):
        recovery.recover(tmp_path)


def test_masks_of_another_size_are_refused_by_a_resumed_run(tmp_path):
    run_folders.write_run(tmp_path, masks=True)
    path = tmp_path / "results.jsonl"
    path.write_text(path.read_text().replace('"size":[24,32]', '"size":[32,24]'))
    with pytest.raises(UsageError, match=r"frame 0 of results\.jsonl is damaged: its masks are for"):
        run_folders.resumed(masks=True)(tmp_path / "run.json")


def test_a_store_with_empty_chunks_is_refused(tmp_path):
    zarr.create_array(
        tmp_path / "a.zarr", data=np.zeros((4, 24, 32), np.uint8), chunks=(2, 24, 32), zarr_format=2
    )
    place = tmp_path / "a.zarr/.zarray"
    place.write_text(json.dumps({**json.loads(place.read_text()), "chunks": [0, 24, 32]}))
    with pytest.raises(SourceError):
        open_source(tmp_path / "a.zarr")


def test_a_png_whose_chunk_claims_gigabytes_is_refused_without_memory_for_it(tmp_path):
    data = bytearray(cv2.imencode(".png", grey_frames(1)[0])[1].tobytes())
    place = data.index(b"IDAT") - 4
    data[place : place + 4] = struct.pack(">I", 0x7F000323)
    (tmp_path / "a.png").write_bytes(data)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (64 << 20), hard))
    try:
        with pytest.raises(SourceError, match="cannot be decoded: it is damaged or no image"):
            open_source(tmp_path / "a.png")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def test_an_array_with_a_damaged_header_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((24, 32), np.float32))
    data = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(data.replace(b"32)", b"32("))
    with pytest.raises(SourceError, match="cannot be read as a NumPy array"):
        read_map(tmp_path / "a.npy")


def test_an_archive_of_arrays_is_no_probability_map(tmp_path):
    np.savez(tmp_path / "a.npz", np.zeros((24, 32), np.float32))
    with pytest.raises(SourceError, match="cannot be read as a NumPy array"):
        read_map((tmp_path / "a.npz").rename(tmp_path / "a.npy"))


def test_a_tiff_with_pages_beyond_its_end_is_refused(tmp_path):
    # BigTIFF with its first page at the largest 64-bit offset
    (tmp_path / "a.tif").write_bytes(b"II" + struct.pack("<HHHQ", 43, 8, 0, 2**64 - 1) + bytes(100))
    with pytest.raises(SourceError):
        open_source(tmp_path / "a.tif")


def test_a_page_with_unknown_compression_is_lost(tmp_path):
    pages = [Image.fromarray(picture) for picture in grey_frames(2)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    data = (tmp_path / "a.tif").read_bytes()
    compression = struct.pack("<HHIH", 259, 3, 1, 1)  # tag, type, count, value
    second = data.rindex(compression)
    assert data.index(compression) < second
    corrupted = data[:second] + struct.pack("<HHIH", 259, 3, 1, 10825) + data[second + 10 :]
    (tmp_path / "a.tif").write_bytes(corrupted)
    with open_source(tmp_path / "a.tif") as source:
        next(source)
        with pytest.raises(SourceLost, match=r"cannot be decoded: it is damaged \(10825\)"):
            next(source)
