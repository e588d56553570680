"""Infrared sequences with ground truth: real data sets and synthetic ones."""
