"""Synthetic infrared scenes: description, rendering and video files with ground truth."""
