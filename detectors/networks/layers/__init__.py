"""detectors/networks/layers."""
