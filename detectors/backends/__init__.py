"""Tridos as graphs that other programs run: what one frame, two neighbours and a whole window decide."""
