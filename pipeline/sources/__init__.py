"""What reads each kind of source, a module for each: pictures, video, streams, raw frames, zarr arrays.

A reader knows its `info` from construction, gives its frames once through `frames()`, and holds files open
until `close()`. All that can be known to be wrong raises SourceError on construction; what goes wrong later
raises `SourceLost` after the last good frame. Sizes are checked before memory is taken for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.sources.opening import open_source

__all__ = ["open_source"]


def __getattr__(name: str) -> Any:
    if name == "open_source":
        from pipeline.sources.opening import open_source

        return open_source
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
