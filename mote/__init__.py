"""Finds and follows tiny moving targets in infrared video.

    for result in mote.watch("in.mp4"):
        print(result.frame.index, result.tracks.boxes)

`watch` yields the results of a source, `Finder` processes frames of any other origin one by one, and `run`
writes the outputs of the command `mote run`. The names are imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline import __version__

if TYPE_CHECKING:
    from mote.finder import Finder
    from mote.runs import run, watch
    from pipeline.structures.results import Result

__all__ = ["Finder", "Result", "__version__", "run", "watch"]


def __getattr__(name: str) -> Any:
    if name == "Finder":
        from mote import finder

        return finder.Finder
    if name in ("run", "watch"):
        from mote import runs

        return getattr(runs, name)
    if name == "Result":
        from pipeline.structures import results

        return results.Result
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
