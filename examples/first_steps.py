# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # First steps
#
# Finds and follows the targets of the sample that comes with the repository. Start Jupyter in the folder of
# the checkout, with `pip install jupytext`, and open this file as a notebook; or run it as a program.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import mote

SAMPLE = Path("datasets/samples/demo.mp4")
FRAMES = 60

# %% [markdown]
# ## Results of a video
#
# One result for each frame: the frame, what was detected in it, and the tracks alive in it.

# %%
results = list(mote.watch(SAMPLE, max_frames=FRAMES))
last = results[-1]
print(last.frame)
print(last.detections)
print(last.tracks)

# %% [markdown]
# Boxes are x1, y1, x2, y2 in pixels. Most detections are weak; tracks start at 0.45.

# %%
for number, score, box in zip(last.tracks.ids, last.tracks.scores, last.tracks.boxes, strict=True):
    print(f"track {number}: score {score:.2f}, box {np.round(box, 1)}")

# %% [markdown]
# ## Paths
#
# The centre of each confirmed track over time, on the brightest value that each pixel had.

# %%
paths: dict[int, list] = {}
for result in results:
    confirmed = result.tracks[result.tracks.state == mote.TrackState.CONFIRMED]
    for number, box in zip(confirmed.ids, confirmed.boxes, strict=True):
        paths.setdefault(int(number), []).append((box[:2] + box[2:]) / 2)
for number, path in paths.items():
    print(f"track {number}: {len(path)} frames, from {np.round(path[0])} to {np.round(path[-1])}")

# %%
figure, axes = plt.subplots(figsize=(8, 6))
axes.imshow(np.max([result.frame.image for result in results], axis=0), cmap="gray")
for number, path in paths.items():
    axes.plot(*np.transpose(path), label=f"track {number}")
axes.legend()

# %% [markdown]
# ## Frames of your own
#
# Any numpy array will do: here those of the sample with 14 bits and little contrast, as an infrared camera
# gives them. Levels 0 and 1 of the network are percentiles of the frame.

# %%
finder = mote.Finder(rate=30, bits=14)
for result in results[:10]:
    grey = result.frame.image if result.frame.image.ndim == 2 else result.frame.image[..., 0]
    found = finder(7000 + 2 * grey.astype(np.uint16))
print(found.frame.levels, found.tracks)
