"""pipeline/runner."""
