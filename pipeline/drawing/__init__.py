"""pipeline/drawing."""
