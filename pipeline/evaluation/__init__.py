"""Evaluation of detections, probability maps and tracks against ground truth, and analysis of their errors."""
