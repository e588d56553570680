"""pipeline/structures."""
