"""Evaluation of networks on annotated datasets and synthetic scenes."""
