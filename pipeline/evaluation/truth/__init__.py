"""Which part of the annotations belongs to a source: its video, its frames, and how its boxes are meant."""
