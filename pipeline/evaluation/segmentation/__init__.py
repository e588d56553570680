"""Evaluation of probability maps against masks: pixel, target and ROC metrics by named definitions."""
