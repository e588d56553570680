"""detectors/networks/tridos/optimised."""
