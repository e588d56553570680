"""Sources of frames: image files, video files, network streams, cameras, raw frames and zarr arrays.

Each kind has a reader in a module of its own; `pipeline.sources.opening` lists which reader takes which
location. A reader knows its `info` from construction, yields its frames once, and holds files open until
`close`. Errors that can be detected early raise SourceError on construction; later ones raise SourceLost
after the last good frame. Sizes are checked before memory is allocated for them.

`open_source` is imported on first use, so that importing one module of the package does not load PyAV and
all readers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.sources.opening import open_source

__all__ = ["open_source"]


def __getattr__(name: str) -> object:
    if name == "open_source":
        from pipeline.sources.opening import open_source

        return open_source
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
