"""datasets/layouts."""
