"""Infrared sequences with ground truth: datasets on disk, synthetic scenes, and training clips.

`layouts` reads, inspects and converts datasets, `synthesis` renders scenes, `sequences` holds their pixels,
and `augmentation` draws clips from them. The modules beside these folders are commands.
"""
