"""Coded packets of sources, from which clips are cut without encoding them again."""
