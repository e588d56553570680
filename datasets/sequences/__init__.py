"""datasets/sequences."""
