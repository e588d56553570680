"""Evaluation of detections: COCO average precision, precision-recall and FROC curves, reports and plots."""
