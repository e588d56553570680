"""Clips of events play in a browser."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from pipeline.sources.opening import open_source
from tests.support.evidence import RATE, coding, images, keep
from tests.support.media import write_video

PAGE = """<p id="said">nothing</p><video id="video" muted autoplay src="clip.mp4"></video><script>
const video = document.getElementById("video"), said = document.getElementById("said");
video.ontimeupdate = () => { said.textContent = `at ${video.currentTime} of ${video.duration}`; };
video.onerror = () => { said.textContent = `error ${video.error.message}`; };
</script>"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
@pytest.mark.parametrize("codec", ["libx264", "ffv1"])
def test_chromium_plays_a_clip(tmp_path, codec):
    settings = {"options": coding(20)} if codec == "libx264" else {"codec": codec, "pixel_format": "gray"}
    with open_source(write_video(tmp_path / "source.mkv", images(80), rate=RATE, **settings)) as source:
        folder = keep(tmp_path, source, 40, 60, pre_roll=1.0, post_roll=0.5)
    (folder / "page.html").write_text(PAGE)
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--mute-audio",
    ]
    options += ["--autoplay-policy=no-user-gesture-required", f"--user-data-dir={tmp_path / 'profile'}"]
    options += ["--virtual-time-budget=2000", "--dump-dom", f"file://{folder / 'page.html'}"]
    done = subprocess.run(["chromium", *options], capture_output=True, text=True, timeout=120)
    said = re.search(r'"said">([^<]*)', done.stdout)[1]
    moved = re.fullmatch(r"at ([\d.]+) of ([\d.]+)", said)
    assert moved, said
    assert float(moved[1]) > 0
    assert float(moved[2]) >= 2.5
