"""mmdet and this project, in both directions.

- its detectors find targets in our pipeline: `--detector mmdet:CONFIG.py --weights FILE` (`stage`);
- its trackers follow them: `--tracker mmdet:ByteTracker` (`tracking`);
- our networks learn in mmengine's Runner: `python -m detectors.mmdet_adapter train CONFIG.py` (`training`);
- its metrics measure our results: `python -m detectors.mmdet_adapter compare …` (`comparison`).

mmdet, mmengine and mmcv are imported by functions alone, after `installation.prepare`: who does not ask for
them does not load them. Configurations of mmengine are Python programs and run when they are read: none is
looked for, only the file that the user names is read.
"""
