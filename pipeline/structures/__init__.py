"""Data types: frames, detections, tracks, results, and ground truth in memory."""
