"""Logs of a training run: console, log files, TensorBoard events and learning curves."""
