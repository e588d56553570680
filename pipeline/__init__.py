"""The way of a frame: source, ring buffer, features, head, suppression, tracker, sinks."""

__version__ = "0.1.0"
