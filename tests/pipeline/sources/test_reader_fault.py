"""An unexpected error of a reader ends its source, and no other one."""

from __future__ import annotations

import pytest

from pipeline.sources import images, opening
from pipeline.sources.source import ReaderFault
from tests.support.media import grey_frames, write_video


def test_a_fault_while_opening_names_source_error_and_place(tmp_path, monkeypatch):
    def fail(*_):
        raise ValueError("31 is not a valid Type")

    path = write_video(tmp_path / "a.mp4", grey_frames(2))
    monkeypatch.setattr("pipeline.sources.video.FrameConverter", fail)
    with pytest.raises(ReaderFault, match=r"a\.mp4 cannot be read, .* ValueError: 31 is not .* line \d+\)"):
        opening.open_source(path)


def test_a_fault_while_reading_comes_after_the_good_frames(tmp_path, monkeypatch):
    path = write_video(tmp_path / "%d.png", grey_frames(3), codec="png", pixel_format="gray")
    with opening.open_source(path.parent) as source:
        next(source)
        monkeypatch.setattr(images, "convert_channels", lambda *_, **__: 1 / 0)
        with pytest.raises(ReaderFault, match="ZeroDivisionError: division by zero"):
            next(source)
