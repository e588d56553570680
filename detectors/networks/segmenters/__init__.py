"""detectors/networks/segmenters."""
