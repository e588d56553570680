"""Smoothing of finished tracks, which uses what came before and after each frame."""
