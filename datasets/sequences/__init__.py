"""Video sequences with pixels: clips, views and the store of decoded frames."""
