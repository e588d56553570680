"""detectors/inference."""
