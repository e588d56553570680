"""Devices, and runtimes that run exported graphs of a network."""
