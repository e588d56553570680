"""Weights of networks: supplied ones, safe reading of files, and networks restored from them."""
