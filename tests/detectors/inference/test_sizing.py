"""What large frames take is told beforehand, and what fits the memory is chosen."""

from __future__ import annotations

import logging
from fractions import Fraction

import pytest

from detectors.inference import cost, sizing
from detectors.inference.sizing import Sizing, fit_to_memory
from pipeline.config.schema import DetectorConfig
from pipeline.structures.frame import SourceInfo
from pipeline.system.errors import UsageError

GB = 10**9


def source(width, height, depth=8):
    """A recording of this size."""
    return SourceInfo("in.avi", width, height, Fraction(30), 6, depth, 1)


def nano(*sources, graph=True, **options):
    """The choice for tridos-nano."""
    config = DetectorConfig(**options)
    return Sizing(config, width=0.25, enlarge=1.0, graph=graph, sources=sources)


@pytest.fixture(autouse=True)
def _speed(monkeypatch):
    monkeypatch.setattr(cost, "core_rate", lambda: 1e11)


def test_memory_decides_between_graphs_torch_and_tiles(caplog):
    choice = nano(source(1280, 720))
    graph, torch = (choice.estimate(DetectorConfig(), form).memory for form in ("graph", "torch"))
    assert graph > 1.3 * torch
    assert choice.choose(int(2 * graph)).backend == "auto"
    assert choice.choose(int(1.4 * torch)).backend == "torch"
    tiled = choice.choose(int(1.2 * torch))
    assert (tiled.backend, tiled.tile) == ("torch", "640x512")
    told = [record.message for record in caplog.records]
    assert len(told) == 3
    assert "1280x720" in told[0]
    assert "frames/s" in told[0]
    assert "using torch" in told[1]
    assert "using tiles of 640x512" in told[2]


def test_inputs_beyond_the_largest_graph_are_computed_by_torch(caplog):
    assert nano(source(1920, 1080)).choose(None).backend == "torch"
    assert "--tile" not in caplog.text
    assert nano(source(4096, 3072)).choose(None).backend == "torch"
    assert "--tile 640x512 would be about" in caplog.text


def test_a_runtime_that_was_asked_for_is_kept():
    assert nano(source(1920, 1080), backend="onnxruntime").choose(64 * GB).backend == "onnxruntime"
    tiled = nano(source(1920, 1080), backend="onnxruntime").choose(3 * GB)
    assert (tiled.backend, tiled.tile) == ("onnxruntime", "640x512")


@pytest.mark.parametrize(("options", "remedy"), [({"tile": "none"}, "--tile auto"), ({}, "--roi")])
def test_what_does_not_fit_is_refused_with_a_remedy(options, remedy):
    with pytest.raises(UsageError, match=r"4096x3072: the detector needs about .* GB .*" + remedy):
        nano(source(4096, 3072), **options).choose(GB // 4)


def test_estimates_of_large_frames_stay_within_the_targets():
    for size, depth, limit in (((1920, 1080), 8, 2 * GB), ((4096, 3072), 16, 6 * GB)):
        choice = nano(source(*size, depth))
        assert choice.estimate(DetectorConfig(), "torch").memory < limit


def test_small_frames_are_computed_as_requested_in_silence(monkeypatch, caplog):
    monkeypatch.setattr(sizing.memory, "available_memory", lambda: 4 * GB)
    fitted = fit_to_memory(DetectorConfig(), [source(320, 256)])
    assert (fitted.backend, fitted.tile) == ("auto", "none")
    assert caplog.text == ""


def test_small_frames_are_tried_in_any_memory_by_torch(monkeypatch, caplog):
    monkeypatch.setattr(sizing.memory, "available_memory", lambda: 10**6)
    monkeypatch.setattr(sizing.memory, "resident_memory", lambda: 10**6)
    fitted = fit_to_memory(DetectorConfig(), [source(320, 256)])
    assert (fitted.backend, fitted.tile) == ("torch", "none")
    assert "using torch" in caplog.text
    asked = fit_to_memory(DetectorConfig(backend="onnxruntime"), [source(320, 256)])
    assert (asked.backend, asked.tile) == ("onnxruntime", "none")


def test_what_the_process_has_already_is_not_needed_again(monkeypatch, caplog):
    whole = nano(source(320, 256)).estimate(DetectorConfig(), "graph").memory / sizing.SHARE
    monkeypatch.setattr(sizing.memory, "available_memory", lambda: int(0.6 * whole))
    monkeypatch.setattr(sizing.memory, "resident_memory", lambda: int(0.5 * whole))
    assert fit_to_memory(DetectorConfig(), [source(320, 256)]).backend == "auto"


def test_several_sources_count_together():
    one, four = nano(source(640, 512)), nano(*[source(640, 512)] * 4)
    both = [choice.estimate(DetectorConfig(), "torch") for choice in (one, four)]
    assert both[1].operations == pytest.approx(4 * both[0].operations)
    assert both[0].memory < both[1].memory < 4 * both[0].memory


def test_regions_and_tiles_cost_what_they_hold():
    whole = nano(source(1920, 1080)).estimate(DetectorConfig(), "torch")
    part = nano(source(1920, 1080)).estimate(DetectorConfig(roi=("0,0,640,512",)), "torch")
    tiled = nano(source(1920, 1080)).estimate(DetectorConfig(tile="320x256"), "torch")
    assert part.operations < whole.operations / 8
    assert tiled.memory < whole.memory
    assert tiled.operations < whole.operations


def test_a_region_outside_of_the_frame_is_refused():
    with pytest.raises(UsageError, match="--roi 700,0,10,10 lies outside of the frames"):
        fit_to_memory(DetectorConfig(roi=("700,0,10,10",)), [source(640, 512)])


@pytest.mark.parametrize("options", [{}, {"tile": "320x256"}, {"tile": "none"}])
def test_large_frames_are_told_once_as_a_whole_or_in_tiles(monkeypatch, caplog, options):
    monkeypatch.setattr(sizing.memory, "available_memory", lambda: 64 * GB)
    caplog.set_level(logging.INFO)
    fit_to_memory(DetectorConfig(**options), [source(1280, 720)])
    (told,) = [record.message for record in caplog.records]
    assert told.startswith("frames of 1280x720: about ")


def test_a_small_part_of_a_large_frame_is_computed_in_silence(monkeypatch, caplog):
    monkeypatch.setattr(sizing.memory, "available_memory", lambda: 64 * GB)
    fit_to_memory(DetectorConfig(roi=("0,0,320,256",)), [source(1280, 720)])
    assert caplog.text == ""
