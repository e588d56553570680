"""Adapter between mmdet 3 and this project, in both directions.

- detectors of mmdet in the pipeline: `--detector mmdet:CONFIG.py --weights FILE` (`stage`);
- our networks in mmengine's Runner: `python -m detectors.mmdet_adapter train CONFIG.py` (`training`);
- our results in mmdet's metrics: `python -m detectors.mmdet_adapter compare …` (`comparison`).

Trackers of mmdet are in `trackers.mmdet`. mmdet, mmengine and mmcv are imported inside functions only, after
`installation.prepare`. Configurations of mmengine are Python programs that are executed when they are read;
only the file that the user names is read.
"""
