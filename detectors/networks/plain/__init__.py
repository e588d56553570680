"""A plain detector of stacked frames: the reference for Tridos, and a detector of targets of a few pixels."""

from detectors.networks.plain.network import PlainNetwork

__all__ = ["PlainNetwork"]
