"""Augmentation of training clips, and corruptions for measuring robustness."""
