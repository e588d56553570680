"""detectors/training/logs."""
