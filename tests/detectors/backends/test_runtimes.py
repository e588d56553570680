"""Other runtimes give the results of torch.

Raw outputs count as equal where 99 % of a frame's values are within 1e-3 of its largest one: the phase of a
spectrum jumps at ±π, where rounding decides. Detections count as equal where each has one of the same class
whose score is within 1e-3 and whose edges are within a twentieth of a pixel.
"""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import pytest
import torch

from detectors.backends import export_folder, runtimes
from detectors.backends.devices import join_count
from detectors.inference import streaming
from detectors.loading import load_detector
from pipeline.config.schema import DetectorConfig
from pipeline.sources.opening import open_source
from pipeline.stages.batching import batches
from pipeline.system.errors import UsageError, WeightsError
from tests.support.damage import turn_a_bit
from tests.support.outputs import detections, report

SIZE = (64, 64)
OTHERS = ("onnxruntime", "openvino")
RAW, SHARE, SCORE, EDGE = 1e-3, 0.99, 1e-3, 0.05


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def exported(nano, nano_origin, tmp_path_factory):
    """The network for 64x64 in the format of a backend, exported when it is first asked for."""
    place = tmp_path_factory.mktemp("exports")

    @cache
    def made(kind):
        return export_folder.export_network(nano, nano_origin, place / kind, size=SIZE, kind=kind)

    return lambda backend: made(runtimes.BACKENDS[backend].format)


@pytest.fixture(scope="module")
def noise():
    return torch.randn(7, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def equal_raw(found, expected):
    """Whether raw outputs (B, …) of each frame are equal as defined above."""
    difference, largest = (found - expected).abs().flatten(1), expected.abs().flatten(1).amax(dim=1)
    return bool(((difference <= RAW * largest[:, None]).float().mean(dim=1) >= SHARE).all())


def equal_detections(found, expected):
    """Whether detections of one frame are equal as defined above."""
    if len(found) != len(expected):
        return False
    for box, score, label in zip(expected.boxes, expected.scores, expected.labels, strict=True):
        near = (np.abs(found.boxes - box).max(axis=1) <= EDGE) & (np.abs(found.scores - score) <= SCORE)
        if not (near & (found.labels == label)).any():
            return False
    return True


# Parity


@pytest.mark.parametrize("name", runtimes.BACKENDS)
def test_streams_of_exported_graphs_equal_those_of_the_network(name, nano, exported, noise):
    network = runtimes.network_from_folder(exported(name), name, threads=1)
    expected = nano.stream().push(noise)
    one_by_one, together = network.stream(), network.stream()
    found = torch.cat([one_by_one.push(frame[None]) for frame in noise])
    assert equal_raw(found, expected)
    assert not equal_raw(found[1:], expected[:-1])  # neighbours are told apart
    torch.testing.assert_close(together.push(noise), found, rtol=0, atol=0)


@pytest.mark.parametrize("name", runtimes.BACKENDS)
def test_a_graph_takes_any_number_of_samples(name, nano, exported, noise):
    frame = runtimes.FolderGraphs(exported(name), name, threads=1).get(SIZE)["frame"]
    for count in (1, 3, 7):
        found, expected = frame(noise[:count]), nano.frame_features(noise[:count])
        assert all(equal_raw(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("name", OTHERS)
def test_a_graph_in_several_threads_gives_the_results_of_one_thread(name, exported, noise):
    frame = runtimes.FolderGraphs(exported(name), name, threads=1).get(SIZE)["frame"]
    samples = list(noise.split(1)) * 6
    expected = [frame(sample) for sample in samples[:7]] * 6
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(frame, samples))
    for outputs, others in zip(found, expected, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(outputs, others, strict=True))


@pytest.mark.parametrize("name", OTHERS)
def test_joins_at_once_find_what_one_after_the_other_finds(name, clip, kept, monkeypatch):
    def found():
        detector, _ = load_detector(DetectorConfig(backend=name, cache=str(kept), threads=1, conf=0.01))
        with open_source(clip) as source:
            return detector.joins_at_once, [item.detections for item in detector.detect(batches(source, 1))]

    monkeypatch.setattr(streaming, "core_count", lambda: 2)
    at_once, together = found()
    monkeypatch.setattr(streaming, "join_count", lambda: 1)
    alone, expected = found()
    assert (at_once > 1, alone) == (join_count() > 1, 1)
    assert sum(map(len, expected)) > 10
    for a, b in zip(together, expected, strict=True):
        assert np.array_equal(a.boxes, b.boxes)
        assert np.array_equal(a.scores, b.scores)


@pytest.mark.real_data
@pytest.mark.parametrize("name", OTHERS)
def test_the_detections_on_real_frames_are_those_of_torch(name, drone_ir, kept):
    def found(backend):
        detector, _ = load_detector(DetectorConfig(backend=backend, cache=str(kept), threads=1))
        with open_source(drone_ir / "videos" / "IR_DRONE_001.mp4", max_frames=20) as source:
            return [item.detections for item in detector.detect(batches(source, 1))]

    expected = found("torch")
    assert sum(map(len, expected)) >= 20
    assert all(equal_detections(a, b) for a, b in zip(found(name), expected, strict=True))


# Runs


@pytest.mark.parametrize("name", OTHERS)
def test_a_run_by_another_runtime_writes_the_same(name, process, clip, kept):
    places = {
        backend: process(clip, backend=backend, cache=str(kept), folder=backend)
        for backend in ("torch", name)
    }
    expected, found = (detections(places[backend]) for backend in ("torch", name))
    assert len(found) == len(expected) > 10
    for a, b in zip(found, expected, strict=True):
        assert a["image_id"] == b["image_id"]
        assert np.allclose(a["bbox"], b["bbox"], atol=EDGE)
        assert abs(a["score"] - b["score"]) <= SCORE
    assert report(places[name])["config"]["detector"]["backend"] == name


def test_a_folder_of_graphs_runs_in_place_of_weights(process, clip, exported, nano_weights):
    folder_run = process(clip, weights=str(exported("onnxruntime").folder), folder="folder")
    plain = process(clip, weights=nano_weights, folder="plain")
    assert len(detections(folder_run)) == len(detections(plain)) > 10
    assert report(folder_run)["config"]["detector"]["backend"] == "onnxruntime"


def test_a_folder_of_graphs_refuses_frames_of_another_size(exported):
    network = runtimes.network_from_folder(exported("onnxruntime"), "onnxruntime", threads=1)
    with pytest.raises(UsageError, match=r"for input of 64x64, not of 96x64: export with --size 96x64"):
        network.stream().push(torch.zeros(1, 3, 64, 96))


# Errors


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--detector", "rdian", "--backend", "onnxruntime"), 2, "not for 'rdian'"),
        (("--backend", "onnxruntime", "--precision", "bf16"), 2, "computes in fp32"),
        (("--backend", "tensorrt"), 2, "onnxruntime"),
        (("--backend", "onnxruntime", "--compile"), 2, "--compile is for a GPU"),
        (("--detector", "rdian", "--compile"), 2, "not for 'rdian'"),
    ],
    ids=["segmenter", "half precision", "unknown", "compiled", "compiled segmenter"],
)
def test_what_a_backend_cannot_do_is_refused_in_one_line(arguments, code, said, mote, clip, tmp_path):
    reply = mote(clip, "--output", tmp_path / "out", *arguments)
    assert (reply.code, reply.err.count("\n")) == (code, 1)
    assert said in reply.err


@pytest.mark.parametrize("name", OTHERS)
def test_a_missing_runtime_is_named_with_the_line_that_installs_it(name, hide_packages, monkeypatch):
    hide_packages(name)
    with pytest.raises(UsageError, match=f"pip install {name}"):
        load_detector(DetectorConfig(backend=name))
    monkeypatch.setitem(runtimes.ON_CPU, "tridos-nano", name)
    assert runtimes.resolve_backend("tridos-nano", DetectorConfig(), torch.device("cpu")).kind == "torch"


def test_a_runtime_that_cannot_be_imported_is_replaced_by_torch_with_a_warning(monkeypatch, caplog):
    def fail(package):
        raise ImportError("libgomp.so.1: cannot open shared object file")

    monkeypatch.setattr(runtimes.importlib, "import_module", fail)
    assert runtimes.resolve_backend("tridos-nano", DetectorConfig(), torch.device("cpu")).kind == "torch"
    (told,) = caplog.messages
    assert told.startswith("onnxruntime cannot be imported: libgomp.so.1")


@pytest.mark.parametrize(
    ("name", "settings", "device"),
    [
        ("rdian", {}, "cpu"),
        ("tridos-nano", {"precision": "bf16"}, "cpu"),
        ("tridos-nano", {"compile": True}, "cpu"),
        ("tridos-nano", {}, "cuda"),
        ("tridos-nano", {"backend": "torch"}, "cpu"),
    ],
)
def test_the_automatic_choice_always_runs(name, settings, device, monkeypatch):
    monkeypatch.setitem(runtimes.ON_CPU, "tridos-nano", "onnxruntime")
    monkeypatch.setattr(runtimes, "require_compiler", lambda device: None)
    assert runtimes.resolve_backend(name, DetectorConfig(**settings), torch.device(device)).kind == "torch"
    assert (
        runtimes.resolve_backend("tridos-nano", DetectorConfig(), torch.device("cpu")).kind == "onnxruntime"
    )


def test_only_the_first_run_reports_an_export(process, clip, tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(runtimes.ON_CPU, "tridos-nano", "onnxruntime")
    for name, told in (("first", 1), ("next", 0)):
        caplog.clear()
        out = process(clip, cache=str(tmp_path / "graphs"), folder=name)
        assert report(out)["config"]["detector"]["backend"] == "onnxruntime"
        assert sum("exported tridos-nano for input of 64x64 in" in line for line in caplog.messages) == told


def test_graphs_of_another_format_are_refused_with_the_backend_that_reads_them(exported):
    with pytest.raises(WeightsError, match="--backend onnxruntime or openvino"):
        runtimes.network_from_folder(exported("onnxruntime"), "torch", threads=1)
    with pytest.raises(WeightsError, match="--backend torch"):
        runtimes.network_from_folder(exported("torch"), "onnxruntime", threads=1)


@pytest.mark.parametrize("name", OTHERS)
def test_a_graph_that_a_runtime_cannot_read_is_refused_in_one_line(name, nano_origin, tmp_path):
    contents = dict.fromkeys(export_folder.GRAPHS, b"not a graph")
    export = export_folder.write_export(contents, nano_origin, tmp_path, size=SIZE, kind="onnx")
    with pytest.raises(WeightsError, match=rf"graph 'frame' of .* cannot be read by {name}") as error:
        runtimes.network_from_folder(export, name, threads=1)
    assert "\n" not in str(error.value)


def test_a_run_refuses_a_folder_with_a_damaged_graph(mote, clip, exported, tmp_path):
    folder = shutil.copytree(exported("onnxruntime").folder, tmp_path / "exported")
    turn_a_bit(folder / "frame.onnx")
    reply = mote(clip, "--weights", folder, "--output", tmp_path / "out", "--progress", "off")
    assert (reply.code, reply.err.count("\n")) == (4, 1)
    assert "frame.onnx is damaged: its digest is another one; export again" in reply.err
    assert not (tmp_path / "out").exists()


def test_graphs_are_for_the_detector_they_were_made_from(exported):
    with pytest.raises(WeightsError, match="--detector tridos-nano"):
        load_detector(DetectorConfig(name="tridos", weights=str(exported("onnxruntime").folder)))
