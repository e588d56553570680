"""datasets/synthesis."""
