"""Training of detectors and segmenters: recipe, data, losses, optimiser, trainer and checkpoints."""
