"""Tridos arranged for fast inference; results differ from those of the plain network by rounding."""
