"""pipeline/config."""
