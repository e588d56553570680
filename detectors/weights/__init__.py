"""detectors/weights."""
