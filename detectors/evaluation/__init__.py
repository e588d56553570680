"""detectors/evaluation."""
