"""Decodes infrared video, runs detectors and trackers frame by frame, and writes and evaluates the results.

`pipeline` knows detectors, segmenters and trackers only by the protocols in `pipeline.structures.protocols`.
"""

from __future__ import annotations

import json
from pathlib import Path

BUILD = Path(__file__).with_name("build.json")
"""Version and commit of an installed package, written when the wheel is built; absent in a repository."""

__version__ = json.loads(BUILD.read_text(encoding="utf-8"))["version"] if BUILD.exists() else "0.1.0"
