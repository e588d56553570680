"""Zarr stores are read losslessly, and malicious stores are refused."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numcodecs
import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec, BytesCodec, GzipCodec, ZstdCodec

from pipeline.imaging import image_files
from pipeline.sources import zarr_array
from pipeline.sources.opening import open_source
from pipeline.system.errors import SourceError
from tests.support.media import grey_frames, read_until_lost

FRAMES = np.stack(grey_frames(10)).astype(np.uint16) * 257


def write_store(folder: Path, **options) -> Path:
    options = {"chunks": (4, 40, 96), **options}
    zarr.create_array(folder / "a.zarr", data=FRAMES, **options)
    return folder / "a.zarr"


def edit(path: Path, change) -> None:
    table = json.loads(path.read_text())
    change(table)
    path.write_text(json.dumps(table))


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("codec", ["nothing", "zstd", "blosc", "gzip", "lz4"])
def test_arrays_of_both_versions_are_read_with_any_compression(tmp_path, version, codec):
    if codec == "lz4" and version == 3:
        pytest.skip("version 3 has no codec of this name")
    ours = {
        "zstd": numcodecs.Zstd(),
        "blosc": numcodecs.Blosc(),
        "gzip": numcodecs.GZip(),
        "lz4": numcodecs.LZ4(),
    }
    theirs = {"zstd": ZstdCodec(), "blosc": BloscCodec(), "gzip": GzipCodec()}
    compressors = (ours if version == 2 else theirs).get(codec)
    path = write_store(tmp_path, zarr_format=version, compressors=compressors)
    with open_source(path, start=3, max_frames=6, rate=25) as source:
        info, frames = source.info, list(source)
    assert (info.width, info.height, info.bit_depth, info.channels, info.frame_count) == (96, 64, 16, 1, 6)
    assert [frame.index for frame in frames] == [3, 4, 5, 6, 7, 8]
    np.testing.assert_array_equal([frame.image for frame in frames], FRAMES[3:9])


def test_big_endian_and_column_major_arrays_are_read(tmp_path):
    data = zarr.create_array(
        tmp_path / "a.zarr", shape=FRAMES.shape, chunks=(4, 40, 96), dtype=">u2", order="F", zarr_format=2
    )
    data[:] = FRAMES
    zarr.create_array(
        tmp_path / "b.zarr", data=FRAMES, chunks=(4, 40, 96), serializer=BytesCodec(endian="big")
    )
    for name in ("a.zarr", "b.zarr"):
        with open_source(tmp_path / name) as source:
            np.testing.assert_array_equal([frame.image for frame in source], FRAMES)


def test_the_only_or_the_named_array_of_a_group_is_read(tmp_path):
    group = zarr.create_group(tmp_path / "g.zarr")
    group.create_array("frames", data=FRAMES)
    with open_source(tmp_path / "g.zarr") as source:
        assert len(list(source)) == 10
    group.create_array("deep/scores", data=FRAMES[:3])
    group.create_array("half", data=FRAMES[:5])
    with pytest.raises(
        SourceError, match=r"one is needed; name it with --set source.array=NAME: frames, half"
    ):
        open_source(tmp_path / "g.zarr")
    with open_source(tmp_path / "g.zarr", array="deep/scores") as source:
        assert len(list(source)) == 3


def test_a_missing_chunk_ends_the_source_before_the_incomplete_frame(tmp_path):
    path = write_store(tmp_path)
    shutil.rmtree(path / "c" / "1")
    frames, lost = read_until_lost(path)
    assert len(frames) == 4
    assert "lost at frame 4: its chunks are missing" in lost


def test_a_chunk_of_the_fill_value_may_be_absent(tmp_path):
    data = FRAMES.copy()
    data[:, 40:] = 0
    zarr.create_array(tmp_path / "a.zarr", data=data, chunks=(4, 40, 96))
    assert not (tmp_path / "a.zarr/c/0/1").exists()
    with open_source(tmp_path / "a.zarr") as source:
        np.testing.assert_array_equal([frame.image for frame in source], data)


@pytest.mark.parametrize(
    "codec", [None, numcodecs.Zstd(), numcodecs.Blosc(), numcodecs.LZ4(), numcodecs.GZip()]
)
@pytest.mark.parametrize("size", [10_000_000, 100], ids=["bomb", "too little"])
def test_a_chunk_that_decompresses_to_another_size_is_refused(tmp_path, codec, size):
    path = write_store(tmp_path, zarr_format=2, compressors=codec)
    content = bytes(size)
    (path / "1.0.0").write_bytes(codec.encode(content) if codec else content)
    frames, lost = read_until_lost(path)
    assert len(frames) == 4
    assert "lost at frame 4: chunk 1, 0, 0: " in lost


def test_a_damaged_chunk_ends_the_source(tmp_path):
    path = write_store(tmp_path)
    (path / "c/2/0/0").write_bytes(b"\xff" * 500)
    frames, lost = read_until_lost(path)
    assert len(frames) == 8
    assert "lost at frame 8: chunk 2, 0, 0: " in lost


@pytest.mark.parametrize(
    "place", [{"filters": [{"id": "pickle"}]}, {"compressor": {"id": "pickle"}}], ids=["filter", "compressor"]
)
def test_code_in_a_store_is_not_run(tmp_path, place):
    class Exploit:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    path = write_store(tmp_path, zarr_format=2)
    edit(path / ".zarray", lambda table: table.update({"compressor": None, **place}))
    (path / "0.0.0").write_bytes(pickle.dumps(Exploit()))
    with pytest.raises(
        SourceError, match=r"chunks stored by pickle are not read|cannot be opened as zarr array"
    ):
        list(open_source(path))
    assert not (tmp_path / "ran").exists()
    pickle.loads((path / "0.0.0").read_bytes())
    assert (tmp_path / "ran").exists(), "the exploit would have worked"


def test_links_out_of_a_store_are_not_followed(tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(FRAMES[:4, :40].tobytes())
    path = write_store(tmp_path, compressors=None)
    (path / "c/0/0/0").unlink()
    (path / "c/0/0/0").symlink_to(secret)
    frames, lost = read_until_lost(path)
    assert frames == []
    assert "it lies outside the store" in lost


@pytest.mark.parametrize("name", ["../other.zarr", "link"])
def test_the_named_array_must_lie_in_the_store(tmp_path, name):
    zarr.create_array(tmp_path / "other.zarr", data=FRAMES)
    zarr.create_group(tmp_path / "g.zarr")
    (tmp_path / "g.zarr/link").symlink_to(tmp_path / "other.zarr")
    with pytest.raises(SourceError, match=f"array '{name}' lies outside the store"):
        open_source(tmp_path / "g.zarr", array=name)
    with pytest.raises(SourceError, match=r"name it with --set source\.array=NAME: none"):
        open_source(tmp_path / "g.zarr")


def claim_size(table):
    table["shape"] = [10, 100_000, 100_000]


def claim_chunks(table):
    table["chunk_grid"]["configuration"]["chunk_shape"] = [100_000, 100_000, 100_000]


def claim_other_codec(table):
    table["codecs"].append({"name": "sneaky"})


def forget_shape(table):
    del table["shape"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (claim_size, "frames of 100000x100000 are refused"),
        (claim_chunks, "bytes for one frame in chunks of 100000x100000x100000; .* use smaller chunks"),
        (claim_other_codec, "cannot be opened as zarr array"),
        (forget_shape, "cannot be opened as zarr array"),
    ],
)
def test_impossible_metadata_is_refused(tmp_path, change, message):
    path = write_store(tmp_path)
    edit(path / "zarr.json", change)
    with pytest.raises(SourceError, match=message) as caught:
        open_source(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (FRAMES[0], {}, "holds 64x96 of uint16; give"),
        (FRAMES.astype(np.float32), {}, "of float32; give"),
        (FRAMES, {"shards": (8, 80, 96), "chunks": (4, 40, 96)}, "stored in shards; write it again without"),
        (FRAMES[:0], {}, "holds no frames"),
    ],
    ids=["two axes", "float", "shards", "empty"],
)
def test_arrays_of_another_kind_are_refused(tmp_path, data, options, message):
    zarr.create_array(tmp_path / "a.zarr", data=data, **options)
    with pytest.raises(SourceError, match=message):
        open_source(tmp_path / "a.zarr")


def test_metadata_nested_too_deep_or_too_long_is_refused(tmp_path, monkeypatch):
    path = write_store(tmp_path)
    text = (path / "zarr.json").read_text()
    (path / "zarr.json").write_text(
        text.replace('"attributes": {', '"attributes": {"a": ' + "[" * 100_000, 1)
    )
    with pytest.raises(SourceError, match=r"cannot be opened|nested too deep"):
        open_source(path)
    monkeypatch.setattr(zarr_array, "MAX_METADATA_BYTES", 100)
    with pytest.raises(SourceError, match=r"zarr\.json cannot be read: it has .* at most 100 bytes"):
        open_source(path)


def test_frames_too_large_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(image_files, "MAX_PIXELS", 1000)
    with pytest.raises(SourceError, match="frames of 96x64 are refused"):
        open_source(write_store(tmp_path))
