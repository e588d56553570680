"""Evaluation of tracks: CLEAR MOT metrics (MOTA, MOTP) and identity metrics (IDF1) by motmetrics."""
