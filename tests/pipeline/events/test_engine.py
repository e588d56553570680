"""Events start, go on and end with the tracks that fulfil their rules."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from pipeline.structures.frame import Gap
from tests.support.watched_tracks import camera, engine, flight, messages, result, results, seen

LONG = "c" * 30


def starts(rules, *flights, **section):
    """Frames in which events start, with their tracks."""
    told = messages(engine(rules, **section), results(*flights))
    return [(frame, track) for frame, phase, track in told if phase == "start"]


def test_an_event_starts_once_and_ends_with_its_track():
    told = messages(engine({}), results(flight(1, "ttcccc"), frames=12))
    assert told == [(2, "start", 1), (6, "end", 1)]


def test_a_tentative_track_starts_none():
    assert starts({}, flight(1, "tttttttt")) == []


def test_a_track_must_have_lasted():
    assert starts({"min_duration": 0.5}, flight(1, "ttccccccc"), flight(2, "cccc", first=2)) == [(5, 1)]


def test_a_coasting_track_is_alive():
    told = messages(engine({}), results(flight(1, "cc-----cc"), frames=15))
    assert told == [(0, "start", 1), (9, "end", 1)]


def test_no_event_starts_where_the_box_is_only_predicted():
    zone = {"zones": {"gate": [[18, 0], [60, 0], [60, 80], [18, 80]]}}
    assert starts({"zones": ["gate"]}, flight(1, "ccccc------"), **zone) == []
    assert starts({"zones": ["gate"]}, flight(1, "ccccc-----cc"), **zone) == [(10, 1)]


def test_an_event_that_goes_on_is_told_in_intervals():
    told = messages(engine({}, update=1.0), results(flight(1, "c" * 25)))
    assert told == [(0, "start", 1), (10, "update", 1), (20, "update", 1), (None, "end", 1)]


def test_messages_of_an_event_are_numbered_and_have_one_id():
    watch = engine({}, update=1.0)
    told = [event for r in results(flight(7, "c" * 15)) for event in watch.update(r)] + watch.finish()
    assert [event.sequence for event in told] == [0, 1, 2]
    assert {event.id for event in told} == {"0123456789ab-r-7"}


def test_an_end_tells_of_the_last_frame_of_the_track():
    watch = engine({})
    told = [event for r in results(flight(1, "ccc-"), frames=8) for event in watch.update(r)]
    assert (told[-1].phase, told[-1].frame, told[-1].pts, told[-1].duration) == ("end", 3, 0.3, 0.3)
    assert told[-1].box == (11.0, 38.0, 15.0, 42.0)


def test_a_gap_that_ends_all_tracks_ends_their_events():
    cut = Gap("cut", 0, repeat_previous=False, elapsed_known=False)
    told = messages(engine({}), results(flight(1, "ccc"), flight(2, "ccc", first=3), gaps={3: cut}))
    assert told == [(0, "start", 1), (3, "end", 1), (3, "start", 2), (None, "end", 2)]


def test_the_first_frame_of_a_track_may_have_another_id():
    watch = engine({"min_duration": 0.3})
    rows = [seen(-5, 10, state="t", age=0), seen(-5, 11, state="t", age=1)]
    rows += [seen(1, 12, before=-5, age=2), seen(1, 13, age=3), seen(1, 14, age=4)]
    told = [event for index, row in enumerate(rows) for event in watch.update(result(index, row))]
    assert [(event.frame, event.begun, event.duration) for event in told] == [(3, 0.0, 0.3)]


def test_a_track_without_a_tentative_past_has_the_age_that_its_tracker_tells():
    watch = engine({"min_duration": 0.5})
    (event,) = watch.update(result(20, seen(1, 10, age=7)))
    assert (event.begun, event.duration) == (1.3, 0.7)


def test_each_rule_starts_an_event_of_its_own():
    rules = [{"name": "soon", "min_duration": 0}, {"name": "late", "min_duration": 1}]
    watch = engine(rules)
    told = [(e.frame, e.rule) for r in results(flight(1, LONG)) for e in watch.update(r)]
    assert told == [(0, "soon"), (10, "late")]


# Conditions


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        ({"min_score": 0.95}, []),
        ({"min_score": 0.9}, [1]),
        ({"classes": ["drone"]}, [1]),
        ({"classes": ["bird"]}, []),
        ({"min_speed": 19, "max_speed": 21}, [1]),
        ({"min_speed": 21}, []),
        ({"max_speed": 19}, []),
        ({"min_size": 4, "max_size": 4}, [1]),
        ({"max_size": 3.9}, []),
        ({"direction": [45, 135]}, [1]),
        ({"direction": [135, 45]}, []),
        ({"direction": [300, 90]}, [1]),
        ({"direction": [0, 360]}, [1]),
    ],
)
def test_a_track_to_the_right_at_20_pixels_a_second_fulfils_a_rule_or_not(rule, wanted):
    track = flight(1, "ccc", step=(2.0, 0.0), label=1)
    assert [row[1] for row in starts(rule, track, classes=("bird", "drone"))] == wanted


def test_the_score_is_the_highest_so_far():
    rows = [seen(1, 10, score=0.5), seen(1, 11, score=0.8), seen(1, 12, score=0.3)]
    watch = engine({"min_score": 0.7, "hold": 0.1})
    told = [event for index, row in enumerate(rows) for event in watch.update(result(index, row))]
    assert [(event.frame, event.score) for event in told] == [(2, 0.8)]


def test_conditions_have_to_hold_without_a_break():
    zone = {
        "zones": {"gate": [[20, 0], [23.5, 0], [23.5, 80], [20, 80]], "yard": [[30, 0], [90, 0], [90, 80]]}
    }
    track = flight(1, LONG, start=(10.0, 20.0), step=(1.0, 0.0))  # four frames in the gate, then the yard
    assert starts({"zones": ["gate", "yard"], "hold": 0.3}, track, **zone) == [(13, 1)]
    assert starts({"zones": ["gate", "yard"], "hold": 0.4}, track, **zone) == []


@pytest.mark.parametrize(
    ("states", "wanted"),
    [
        ("c" * 12, [5]),
        ("c-" * 8, [6]),  # seen in half of the frames
        ("c--" * 8, []),
        ("cc" + "c---" * 8, [6]),  # four of seven
        ("c---" * 8, []),
        ("c--" * 4 + "c" * 8, [17]),  # from the frame on in which it is seen often enough
    ],
)
def test_a_target_has_to_be_seen_in_half_of_the_frames_for_which_its_conditions_hold(states, wanted):
    assert [frame for frame, _ in starts({"hold": 0.5}, flight(1, states))] == wanted


def test_without_hold_one_frame_is_enough():
    assert starts({"min_duration": 0.5}, flight(1, "c--" * 8)) == [(6, 1)]


def test_velocities_are_told_in_pixels_per_second():
    (event,) = engine({}).update(result(0, seen(1, 10, speed=(2.0, -0.5))))
    assert event.velocity == (20.0, -5.0)


def test_a_stream_with_a_wrong_nominal_rate_has_speeds_of_its_true_one():
    watch = engine({"min_duration": 2})  # 10 frames per second are announced, 5 come
    rows = [
        result(k, seen(1, 10, speed=(2.0, 0.0), age=k), pts=k / 5, time_in_frames=float(k)) for k in range(12)
    ]
    (event,) = [event for row in rows for event in watch.update(row)]
    assert (event.frame, event.velocity) == (10, (10.0, 0.0))


# Places


def test_an_event_starts_within_its_zone_and_names_it():
    watch = engine(
        {"zones": ["far", "near"]},
        zones={"near": [[14, 0], [50, 0], [50, 80], [14, 80]], "far": [[60, 0], [90, 0], [90, 80], [60, 80]]},
    )
    told = [event for r in results(flight(1, LONG)) for event in watch.update(r)]
    assert [(event.frame, event.zone) for event in told] == [(4, "near")]


def test_zones_may_be_shares_of_the_frame():
    half = {"units": "shares", "zones": {"right": [[0.5, 0], [1, 0], [1, 1], [0.5, 1]]}}
    assert starts({"zones": ["right"]}, flight(1, LONG, step=(4.0, 0.0)), **half) == [(10, 1)]


def test_a_mask_hides_tracks_from_all_rules_that_do_not_leave_it_out():
    masks = {"masks": {"trees": [[0, 0], [20, 0], [20, 80], [0, 80]]}}
    assert starts({}, flight(1, LONG), **masks) == [(10, 1)]
    assert starts({"masks": []}, flight(1, LONG), **masks) == [(0, 1)]


def test_an_event_goes_on_within_a_mask():
    told = messages(
        engine({}, masks={"trees": [[15, 0], [99, 0], [99, 80], [15, 80]]}), results(flight(1, LONG))
    )
    assert told == [(0, "start", 1), (None, "end", 1)]


@pytest.mark.parametrize(
    ("crossing", "step", "wanted"),
    [
        ("any", 7.0, [(6, 1)]),
        ("any", -7.0, [(6, 1)]),
        ("to-right", 7.0, [(6, 1)]),
        ("to-right", -7.0, []),
        ("to-left", 7.0, []),
        ("to-left", -7.0, [(6, 1)]),
    ],
)
def test_a_line_that_leads_upwards_is_crossed_between_two_frames(crossing, step, wanted):
    start = (10.0, 40.0) if step > 0 else (87.0, 40.0)
    line = {"lines": {"fence": [[50, 70], [50, 10]]}}
    track = flight(1, "c" * 10, start=start, step=(step, 0.0))
    assert starts({"lines": ["fence"], "crossing": crossing}, track, **line) == wanted


def test_a_line_is_crossed_while_a_track_is_tentative():
    line = {"lines": {"fence": [[12.5, 70], [12.5, 10]]}}
    assert starts({"lines": ["fence"]}, flight(1, "tttttcc"), **line) == [(5, 1)]


def test_a_track_that_passes_the_end_of_a_line_does_not_cross_it():
    assert starts({"lines": ["fence"]}, flight(1, LONG), lines={"fence": [[20, 10], [20, 39]]}) == []


# Cool-down and schedule


def test_a_rule_rests_after_an_event():
    tracks = [flight(k, "c" * 6, first=4 * (k - 1)) for k in range(1, 6)]  # begin in frames 0, 4, 8, 12, 16
    assert starts({"cooldown": 1.0}, *tracks) == [(0, 1), (10, 3), (20, 5)]


def test_the_rest_of_one_rule_is_none_of_another():
    rules = [{"name": "a", "cooldown": 9, "min_duration": 0}, {"name": "b", "min_duration": 0}]
    tracks = flight(1, LONG), flight(2, LONG, first=5)
    assert starts(rules, *tracks) == [(0, 1), (0, 1), (5, 2)]


def test_a_line_crossed_while_the_rule_rests_starts_no_event_later():
    line = {"lines": {"fence": [[20.5, 79], [20.5, 0]]}}
    tracks = flight(1, "c" * 30), flight(2, "c" * 30, start=(8.0, 20.0))  # cross in frames 11 and 13
    assert starts({"lines": ["fence"], "cooldown": 0.5}, *tracks, **line) == [(11, 1)]


def test_events_start_at_times_of_the_schedule():
    night = {"recorded_at": "2026-11-30T21:59:58", "time_zone": "Europe/Berlin"}
    rule = {"schedule": ["Mon 22:00-06:00"]}
    assert starts(rule, flight(1, LONG), **night) == [(20, 1)]
    assert starts({"schedule": ["Tue 22:00-06:00"]}, flight(1, LONG), **night) == []


def test_a_recording_of_unknown_time_is_under_no_schedule():
    assert starts({"schedule": ["Mon 22:00-22:01"]}, flight(1, LONG)) == [(0, 1)]


def test_the_time_of_a_recording_is_told_in_utc():
    watch = engine({}, recorded_at="2026-07-01 12:00", time_zone="Europe/Berlin")
    (event,) = watch.update(result(5, seen(1, 10)))
    assert event.time == "2026-07-01T10:00:00.500Z"


def test_the_time_of_a_live_frame_is_that_of_its_arrival(monkeypatch):
    monkeypatch.setattr("time.monotonic", lambda: 100.0)
    watch = engine({}, info=camera(live=True))
    (event,) = watch.update(result(0, seen(1, 10), arrival=98.5))
    age = datetime.now(UTC) - datetime.fromisoformat(event.time)
    assert 1.4 < age.total_seconds() < 5


def test_a_clock_that_jumps_back_does_not_stop_durations():
    jump = Gap("jump", 0, repeat_previous=False, elapsed_known=True)
    watch = engine({"min_duration": 1})
    rows = [result(k, seen(1, 10, age=k), pts=5 + k / 10) for k in range(5)]
    rows += [result(k, seen(1, 10, age=k), pts=k / 10, gap=jump if k == 5 else None) for k in range(5, 15)]
    (event,) = [event for row in rows for event in watch.update(row)]
    assert (event.frame, event.duration, event.begun) == (10, 1.0, 5.0)


# Sources and ids


def test_a_rule_for_other_sources_is_not_in_effect():
    rules = [{"name": "a", "sources": ["gate"], "min_duration": 0}, {"name": "b", "min_duration": 0}]
    assert [rule.name for rule in engine(rules, name="roof").rules] == ["b"]
    assert [rule.name for rule in engine(rules, name="gate").rules] == ["a", "b"]


def test_the_same_results_give_the_same_messages():
    def told():
        watch = engine({"cooldown": 0.7}, update=0.5)
        stream = results(flight(1, LONG), flight(2, "tttccc-cc", first=9), flight(3, "cccc", first=12))
        return [e for r in stream for e in watch.update(r)] + watch.finish()

    assert told() == told()
    assert len({(event.id, event.sequence) for event in told()}) == len(told())


def test_memory_is_that_of_the_tracks_alive():
    watch = engine({})
    for index in range(200):
        watch.update(result(index, seen(index + 1, 10, age=0)))
    assert len(watch._tracks) == 1
