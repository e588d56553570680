"""Fuzz targets of text formats: configuration, COCO JSON and MOT text, with their readers."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from pipeline.config.parsing import build, dump_toml, full_setting, load_toml, override, parse_setting
from pipeline.structures.detections import Detections
from pipeline.structures.frame import Frame, SourceInfo
from pipeline.structures.results import Result
from pipeline.structures.tracks import Tracks
from tests.faults.mutants import COUNT, SIZE, Seed, whole
from tests.support.media import grey_frames

# Configuration


def read_config(path: Path) -> str:
    """Builds everything that a run takes from its configuration, except for the networks."""
    import trackers
    from pipeline.config.schema import RunConfig
    from pipeline.runner.setup import make_annotator

    config = build(RunConfig, load_toml(path))
    if not config.tracker.name.startswith("mmdet:"):
        trackers.build(config.tracker.name, **config.tracker.options)
    make_annotator(config, ["target"])
    return "accepted"


def read_settings(path: Path) -> str:
    """Reads arguments of `--set`, one per line."""
    from pipeline.config.schema import RunConfig

    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    settings = [full_setting(RunConfig, parse_setting(line)) for line in lines]
    build(RunConfig, override({}, settings))
    return "accepted"


def read_recipe(path: Path) -> str:
    """Reads a recipe of the trainer."""
    from detectors.training.recipe import Recipe

    build(Recipe, load_toml(path))
    return "accepted"


def config() -> list[Seed]:
    """Returns seeds of a configuration, of settings of the command line and of a recipe."""
    from detectors.training.recipe import Recipe
    from pipeline.config.schema import RunConfig
    from pipeline.drawing.annotator import AnnotatorOptions
    from trackers.centre_options import CentreOptions

    table = json.loads(json.dumps(asdict(RunConfig())))
    table["segmentation"]["segmenters"] = [{"name": "madnet", "size": "64x64", "fit": "stretch"}]
    table["tracker"]["options"] = json.loads(json.dumps(asdict(CentreOptions())))
    table["annotate"] = json.loads(json.dumps(asdict(AnnotatorOptions())))
    settings = (
        b'detector.conf=0.2\nsource.size="96x64"\nlive.queue=3\nsegmentation.segmenters=[{name="madnet"}]'
    )
    return [
        Seed({"run.toml": dump_toml(table).encode()}, whole, read_config),
        Seed({"settings.txt": settings}, whole, read_settings),
        Seed({"recipe.toml": dump_toml(asdict(Recipe())).encode()}, whole, read_recipe),
    ]


# Ground truth and results


def truth_table() -> dict:
    """Returns a COCO-video dictionary of a sequence with one target."""
    size = {"width": SIZE[0], "height": SIZE[1]}
    images = [
        {"id": n + 1, "video_id": 1, "frame_id": n, "file_name": f"a/{n:06d}.png", **size}
        for n in range(COUNT)
    ]
    annotations = [
        {
            "id": n + 1,
            "image_id": n + 1,
            "category_id": 1,
            "instance_id": 7,
            "bbox": [3.0 + n, 4.5, 5, 6],
            "area": 30.0,
            "iscrowd": 0,
        }
        for n in range(COUNT)
    ]
    video = {"id": 1, "name": "clip", "file_name": "clip.mp4", "fps": 30.0, "length": COUNT, **size}
    return {
        "videos": [video],
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "target"}],
    }


ENCODINGS = ("utf-8-sig", "utf-16", "utf-32")
"""Encodings of JSON that some programs write, all with a byte-order mark."""
TRACK_ROWS = "".join(f"{n + 1},1,{4 + n},5.5,5,6,0.9,-1,-1,-1\n" for n in range(COUNT)).encode()


def read_truth_of_run(path: Path) -> str:
    """Scores results by a file as `--annotations` does."""
    from pipeline.runner.ground_truth import GroundTruth
    from tests.support.truth import annotations_of

    info = SourceInfo("clip.mp4", *SIZE, Fraction(30), COUNT, 8, 1)
    truth = GroundTruth(annotations_of(path, info), 1)
    picture = np.zeros(SIZE[::-1], np.uint8)
    for index in range(COUNT):
        found = Detections([[3 + index, 4, 8 + index, 10]], [0.9], [0])
        frame = Frame(picture, index, Fraction(index, 30), "clip.mp4")
        truth.add(Result(frame, found, tracks=Tracks.empty(), warmup=False))
    truth.live()
    json.dumps(truth.score(0.5).as_dict(), allow_nan=False)
    truth.score_tracks(path.parent / "tracks.txt")
    return "scored"


def read_scores(path: Path) -> str:
    """Runs `pipeline.vid_map_coco` on annotations, results and tracks."""
    from pipeline import vid_map_coco

    place = path.parent
    options = [
        "--annotations",
        path,
        "--detections",
        place / "results.json",
        "--tracks",
        place / "tracks.txt",
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        vid_map_coco.work(
            vid_map_coco.parser().parse_args([*map(str, options), "--output", str(place / "out.json")])
        )
    return "scored"


def read_layout(name: str, split: str) -> Callable[[Path], str]:
    """Returns a reader of a data set as for training and conversion."""

    def read(path: Path) -> str:
        from datasets.layouts import registry
        from pipeline.evaluation.tracking.identities import target_identities

        found = registry.load_dataset(name, path.parent, split, strict=False)
        json.dumps(found.to_coco())
        for record in found.records:
            target_identities(record)
        return "read"

    return read


def coco() -> list[Seed]:
    """Returns seeds of annotations for a run, for scoring, and for training with and without videos."""
    truth = json.dumps(truth_table()).encode()
    results = [
        {"image_id": n + 1, "category_id": 1, "bbox": [3, 4, 5, 6], "score": 0.9} for n in range(COUNT)
    ]
    scored = {"truth.json": truth, "results.json": json.dumps(results).encode(), "tracks.txt": TRACK_ROWS}
    pictures = {**truth_table(), "videos": []}
    for image in pictures["images"]:
        del image["video_id"], image["frame_id"]
    coded = [json.dumps(truth_table()).encode(encoding) for encoding in ENCODINGS]
    return [
        *(Seed({"truth.json": data, "tracks.txt": TRACK_ROWS}, whole, read_truth_of_run) for data in coded),
        *(Seed({"truth.json": data}, whole, read_layout("coco-video", "truth.json")) for data in coded),
        Seed({"truth.json": truth, "tracks.txt": TRACK_ROWS}, whole, read_truth_of_run),
        Seed(scored, whole, read_scores),
        Seed({"truth.json": truth}, whole, read_layout("coco-video", "truth.json")),
        Seed({"truth.json": json.dumps(pictures).encode()}, whole, read_layout("coco-video", "truth.json")),
    ]


# MOT text


def read_sequence(path: Path) -> str:
    """Reads a folder of MOT sequences as for training and conversion."""
    return read_layout("mot", ".")(path.parents[1] / "any")


def read_tracks(path: Path) -> str:
    """Scores a file of tracks."""
    from pipeline.evaluation.tracking.gates import GATES
    from pipeline.evaluation.tracking.scoring import score_tracks
    from pipeline.structures.annotations import video_records

    (record,) = video_records(truth_table())
    for gate in GATES:
        score_tracks(record, path, gate=gate)
    return "scored"


def read_text_list(path: Path) -> str:
    """Reads a list of frames with boxes."""
    return read_layout("frame-list", path.name)(path)


def mot() -> list[Seed]:
    """Returns seeds of a sequence with a video, one with pictures, tracks, and a text list."""
    rows = "".join(f"{n + 1},7,{4 + n},5.5,5,6,1,1,0.8\n" for n in range(COUNT)).encode()
    facts = f"[Sequence]\nname=clip\nframeRate=30\nseqLength={COUNT}\nimWidth={SIZE[0]}\nimHeight={SIZE[1]}\n"
    video = {
        "gt/gt.txt": rows,
        "seqinfo.ini": f"{facts}video=clip.mp4\n".encode(),
        "gt/labels.txt": b"drone\n",
    }
    # ten columns: as of VisDrone, with truncation and occlusion, and as of TrackEval, with a place in space
    drone = "".join(f"{n + 1},7,{4 + n},5,5,6,1,{n % 2 + 1},0,1\n" for n in range(COUNT)).encode()
    spatial = "".join(f"{n + 1},7,{4 + n},5.5,5,6,1,-1,-1,-1\n" for n in range(COUNT)).encode()
    _, picture = cv2.imencode(".png", grey_frames(1, *SIZE[::-1])[0])
    pictures = {f"img1/{n + 1:06d}.png": picture.tobytes() for n in range(COUNT)}
    listed = "".join(f"images/a/{n}.png {n},2,{n + 5},8,0\n" for n in range(COUNT)).encode()
    return [
        Seed(video, whole, read_sequence),
        Seed({**video, "gt/gt.txt": drone, "gt/labels.txt": b"drone\nbird\n"}, whole, read_sequence),
        Seed({**video, "gt/gt.txt": spatial}, whole, read_sequence),
        Seed({"tracks.txt": spatial}, whole, read_tracks),
        Seed(
            {"gt/gt.txt": rows, "seqinfo.ini": b"[Sequence]\nimDir=img1\n", **pictures}, whole, read_sequence
        ),
        Seed({"tracks.txt": TRACK_ROWS}, whole, read_tracks),
        Seed({"list.txt": listed}, whole, read_text_list),
    ]
