"""The way of a frame: source, ring buffer, features, head, suppression, tracker, sinks."""

import os

__version__ = "0.1.0"

# Read when torch is loaded. Its threads wait for one another by turning in place, 300 000 times unless told,
# and keep the core from those they wait for where another program runs. With 5000 turns tridos on two cores,
# one of them busy, computes ten times as many frames, and about as many where nothing else runs.
os.environ.setdefault("GOMP_SPINCOUNT", "5000")
