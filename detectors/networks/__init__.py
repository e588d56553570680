"""detectors/networks."""
