"""Track metrics and their definitions."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from pipeline.evaluation.tracking.gates import GATES


@dataclass(frozen=True)
class TrackScores:
    """Metrics of tracks against annotated targets; a ratio without a denominator is None.

    MOTA, MOTP and their counts are the CLEAR MOT metrics (Bernardin and Stiefelhagen, 2008), IDF1, IDP and
    IDR the identity metrics of Ristani et al. (ECCV 2016 workshops), both by motmetrics. In a frame, an
    annotated box is *matched* with a track inside the gate: with the track of its previous match if that is
    inside the gate; the other boxes are matched so that their number is greatest, then their total distance
    lowest.
    """

    gate: str
    """Name of the gate."""
    limit: float
    """Limit of the gate: lowest IoU, or greatest distance between centres in pixels."""
    mota: float | None
    """1 - (misses + false positives + switches) / boxes: at most 1, negative if errors outnumber boxes."""
    motp: float | None
    """Mean distance of the matched pairs in the unit of the gate, 1 - IoU or pixels. Lower is better."""
    idf1: float | None
    """Harmonic mean of `idp` and `idr`."""
    idp: float | None
    """Identity precision: the share of track rows inside the gate of the target assigned to their track. Each
    target is assigned at most one track for the whole video, by the assignment that maximises IDF1."""
    idr: float | None
    """Identity recall: the share of the annotated boxes that the track assigned to their target covers."""
    switches: int
    """Matches of a target with a track other than that of its previous match, also after an interruption."""
    fragments: int
    """Number of times a target is lost and matched again later."""
    misses: int
    """Annotated boxes that are not matched."""
    false_positives: int
    """Track rows that are not matched."""
    mostly_tracked: int
    """Targets matched in at least 80 % of their frames."""
    mostly_lost: int
    """Targets matched in less than 20 % of their frames."""
    boxes: int
    """Annotated boxes."""
    targets: int
    """Annotated identities."""
    tracks: int
    """Track ids."""
    frames: int
    """Frames scored, with or without targets."""
    hota: float | None = None
    """Geometric mean of `deta` and `assa` at each of 19 thresholds of the similarity, 0.05 to 0.95, averaged
    over them (Luiten et al., IJCV 2021; by trackeval). The similarity of a target and a track is their IoU,
    or max(0, 1 - d / (2 * limit)) for centres d pixels apart. None also if trackeval is not installed."""
    deta: float | None = None
    """Detection accuracy, TP / (TP + FN + FP) of boxes matched at a threshold, averaged over the thresholds.
    In HOTA matches are chosen for the best identities, not from frame to frame."""
    assa: float | None = None
    """Association accuracy: mean over the matches of the IoU of their target and their track, as sets of
    frames, averaged over the thresholds."""
    coverage: float | None = None
    """Share of the annotated boxes with a track inside the gate, whichever it is."""
    missed_targets: int = 0
    """Targets with less than a fifth of their boxes covered."""
    first_confirmation: float | None = None
    """Mean time from the first box of a target to the first that is covered, over the targets that are
    covered at all: seconds; frame intervals if the rate is unknown. Read it with `missed_targets`."""
    false_tracks: int = 0
    """Tracks with less than a fifth of their rows inside the gate of any annotated box."""
    false_tracks_per_minute: float | None = None
    """Of the video at its rate; None if the rate is unknown."""
    false_tracks_per_hour: float | None = None
    """60 times as many."""
    tube_ap: float | None = None
    """Average precision of whole tracks, mean over ten lowest overlaps of a hit, 0.5 to 0.95: see
    `pipeline.evaluation.tracking.tubes`. None without targets."""
    tube_ap50: float | None = None
    """The same at an overlap of 0.5."""

    def as_dict(self) -> dict[str, float | int | str | None]:
        """Returns plain values for JSON; None for what is undefined."""
        return asdict(self)

    def table(self) -> str:
        """Returns one line of text per metric; a dash for what is undefined."""
        rows = {name: format_value(value) for name, value in self.as_dict().items()}
        unit = f" ({GATES[self.gate].unit})" if self.gate in GATES and self.motp is not None else ""
        rows["motp"] += unit
        return "\n".join(f"{name:<25}{text}" for name, text in rows.items())


def format_value(value: float | int | str | None) -> str:
    """Returns a float with four decimals, other values as they are, and a dash for None."""
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
