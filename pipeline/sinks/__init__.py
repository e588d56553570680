"""Outputs of a run: one sink for each file that is written, and the rotation of files of long runs."""
