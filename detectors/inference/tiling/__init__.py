"""Tiles and regions of frames, each computed on its own, and their results put together."""
