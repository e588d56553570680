"""Analysis of finished detections: error attribution, box sizes, operating thresholds, score calibration."""
