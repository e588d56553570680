"""Evaluation of detections, probability maps and tracks against ground truth, and error analysis."""
