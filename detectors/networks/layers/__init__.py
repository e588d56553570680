"""Layers and box functions shared by the networks."""
