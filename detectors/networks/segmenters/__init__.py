"""Single-frame segmenters: networks that predict the probability of each pixel to belong to a target."""
