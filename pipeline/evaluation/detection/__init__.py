"""pipeline/evaluation/detection."""
