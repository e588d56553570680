"""How well detections fit the ground truth: matching, average precision, false alarms, tables and plots."""
