"""Published trackers that link boxes by their overlap: SORT, ByteTrack and OC-SORT, written from the papers.

They are meant for comparisons, and for targets that are large enough to overlap between frames. The docstring
of each tracker says where it differs from paper or program.
"""
