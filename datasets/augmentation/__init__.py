"""datasets/augmentation."""
