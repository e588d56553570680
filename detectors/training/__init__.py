"""detectors/training."""
