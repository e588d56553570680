"""Inference with loaded networks: streams of frames, postprocessing, probability maps."""
