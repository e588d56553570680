"""Options of the command line that would have no effect are refused."""

from __future__ import annotations

import pytest

import run_pipeline
from pipeline.config.applicability import require_applicable
from pipeline.config.parsing import build, override, parse_setting
from pipeline.config.schema import RunConfig
from pipeline.system.errors import UsageError

RAW = ["source.format=raw", "source.size=64x48", "source.dtype=uint8"]


def check(setting, *others, source="video file", location="in.mp4", detector="detector"):
    """Checks a setting that is typed, beside others that are in a file."""
    key = parse_setting(setting)[0]
    table = override({}, [parse_setting(text) for text in (setting, *others)])
    typed = {".".join(key): f"--set {'.'.join(key)}="}
    require_applicable(typed, build(RunConfig, table), {location: source}, detector=detector)


@pytest.mark.parametrize(
    ("setting", "situation"),
    [
        ("source.format=y4m", {"source": "images"}),
        ("source.format=mpegts", {"source": "camera"}),
        ("source.size=64x48", {}),
        ("source.dtype=uint8", {"source": "images"}),
        ("source.rate=9", {}),
        ("source.rate=30", {}),  # the default, but the video may have another one
        ("source.rate=9", {"source": "address"}),
        ("source.header=4", {"source": "zarr"}),
        ("source.start=2s", {"source": "camera"}),
        ("source.end=0:02", {"source": "camera"}),
        ("source.array=frames", {}),
        ("source.stream=2", {"source": "images"}),
        ("source.hwaccel=cuda", {"source": "address"}),
        ("source.timeout=5", {}),
        ("source.transport=udp", {"source": "address", "location": "http://host/in.ts"}),
        ("live.reconnect=3", {"source": "input"}),
        ("live.backoff=1", {}),
        ("live.on_gap=flush", {"detector": "segmenter"}),
        ("detector.iou=0.3", {"detector": "mmdet"}),
        ("detector.fit=stretch", {}),
        ("detector.components.threshold=0.3", {}),
        ("detector.cache=/tmp", {"detector": "segmenter"}),
        ("segmentation.margin=3", {}),
        ("service.health_host=0.0.0.0", {}),
        ("service.stalled_after=5", {}),
    ],
)
def test_an_option_that_does_not_apply_is_refused(setting, situation):
    with pytest.raises(UsageError, match=rf"--set {setting.split('=')[0]}=.* has no effect.*leave it out"):
        check(setting, **situation)


@pytest.mark.parametrize("setting", ["annotate.trail=3", "output.quality=3"])
def test_options_of_the_drawing_need_the_annotated_video(setting):
    check(setting)
    with pytest.raises(UsageError, match="it is for the annotated video"):
        check(setting, "output.video=false")
    check("annotate.min_score=0.2", "output.video=false")  # the summary counts from it


@pytest.mark.parametrize(
    ("settings", "situation"),
    [
        (["source.format=y4m"], {}),
        (["source.size=64x48"], {"source": "camera"}),
        (["source.rate=9"], {"source": "images"}),
        (["source.rate=9", *RAW], {"source": "raw file"}),
        (["source.header=9", *RAW], {"source": "input"}),
        (["source.stream=2"], {"source": "address"}),
        (["source.timeout=5"], {"source": "input"}),
        (["source.transport=udp"], {"source": "address", "location": "rtsp://host/in"}),
        (["live.reconnect=none"], {}),  # asks for nothing
        (["source.hwaccel=none"], {"source": "images"}),
        (["detector.fit=stretch", "detector.size=64x64"], {}),
        (["detector.iou=0.3"], {"detector": "plugin"}),
        (["detector.components.threshold=0.3"], {"detector": "segmenter"}),
        (["service.stalled_after=5", "service.health_port=9464"], {}),
    ],
)
def test_an_option_that_applies_is_accepted(settings, situation):
    check(*settings, **situation)


def test_an_option_needs_to_apply_to_one_of_several_sources():
    config = build(RunConfig, {"source": {"rate": 9}})
    both = {"in.mp4": "video file", "frames": "images"}
    require_applicable({"source.rate": "--source-rate "}, config, both, detector="detector")
    del both["frames"]
    with pytest.raises(UsageError, match=r"--source-rate 9 has no effect on in\.mp4"):
        require_applicable({"source.rate": "--source-rate "}, config, both, detector="detector")


def test_no_message_shows_a_password():
    config = build(RunConfig, {"source": {"array": "frames"}})
    address = {"rtsp://user:secret@host/in": "address"}
    with pytest.raises(UsageError) as caught:
        require_applicable({"source.array": "--set source.array="}, config, address, detector="detector")
    assert "secret" not in str(caught.value)


def test_keys_of_a_configuration_file_may_not_apply(tmp_path):
    (tmp_path / "cameras.toml").write_text("[source]\ntimeout = 5.0\n")
    options = run_pipeline.parser().parse_args(["in.mp4", "--config", str(tmp_path / "cameras.toml")])
    assert run_pipeline.typed_keys(options) == {}
    run_pipeline.require_applicable(options, run_pipeline.configuration(options), ["in.mp4"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--conf", "2"], "--conf 2, expected 0 to 1"),
        (["--set", "detector.conf=2"], "--set detector.conf=2, expected 0 to 1"),
        (["--source-format", "raw"], "--source-format raw needs .* give --source-size and --source-dtype"),
        (["--enlarge", "2", "--size", "64x64"], "--enlarge 2.0 needs --size native, not '64x64'"),
        (["--overwrite", "--resume"], "^--overwrite and --resume exclude each other"),
        (["--fuse", "union"], "--fuse 'union' needs a segmenter; give --segmenter NAME"),
        (["--set", 'detector.conf="high"'], '--set detector.conf="high", expected a number'),
    ],
)
def test_messages_name_what_the_user_typed(arguments, message):
    options = run_pipeline.parser().parse_args(["in.mp4", *arguments])
    with pytest.raises(UsageError, match=message):
        run_pipeline.configuration(options)
