"""Configuration of a run: every key with its default, read from TOML and flags."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.config.schema import DetectorConfig, RunConfig, SourceConfig

__all__ = ["DetectorConfig", "RunConfig", "SourceConfig"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from pipeline.config import schema

        return getattr(schema, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
