"""Results of sequences that share a network equal those of separate networks, bit for bit on a CPU."""

from __future__ import annotations

import threading
from fractions import Fraction

import numpy as np
import pytest
import torch

import detectors
from detectors.inference import streaming
from detectors.inference.multi_stream import MultiStreamDetector
from detectors.loading import load_detector
from detectors.networks.tridos import stream as stream_module
from detectors.networks.tridos.stream import push_batched
from pipeline.config.schema import DetectorConfig
from pipeline.structures.frame import Frame
from tests.support.nano import enliven

LENGTHS = (9, 4, 7)


@pytest.fixture(scope="module")
def network():
    model = detectors.build("tridos-nano")
    enliven(model, seed=0)
    return model.eval()


@pytest.fixture
def sequences():
    chance = torch.Generator().manual_seed(1)
    return [torch.randn(length, 3, 32, 64, generator=chance) for length in LENGTHS]


def test_streams_that_are_pushed_together_give_what_each_gives_alone(network, sequences):
    alone = [network.stream().push(sequence) for sequence in sequences]
    streams, found = [network.stream() for _ in sequences], [[] for _ in sequences]
    for start in range(0, max(LENGTHS), 2):
        # of the first two frames each, of the second one alone
        parts = [s[start : start + (1 if n == 1 else 2)] for n, s in enumerate(sequences)]
        rows = [n for n, part in enumerate(parts) if len(part)]
        raw = push_batched([streams[n] for n in rows], [parts[n] for n in rows])
        for row, part in zip(rows, raw, strict=True):
            found[row].append(part)
    first, second = torch.cat(found[0]), torch.cat(found[2])
    torch.testing.assert_close(first, alone[0], rtol=0, atol=0)
    torch.testing.assert_close(second, alone[2], rtol=0, atol=0)
    assert not torch.equal(first[: LENGTHS[2]], second)
    assert [stream.frames_seen for stream in streams] == [9, 2, 7]


def frames(count, *, size, bits=8, seed=0):
    random = np.random.default_rng(seed)
    images = random.integers(0, 2**bits, (count, *size), np.uint8 if bits == 8 else np.uint16)
    return [Frame(image, index, Fraction(index, 30), "test", bits) for index, image in enumerate(images)]


@pytest.fixture
def mixed():
    """Sequences of which the first two have network inputs of one size but different bit depths."""
    sizes = ((64, 96), 8), ((60, 90), 16), ((32, 64), 8)
    return [frames(6, size=size, bits=bits, seed=seed) for seed, (size, bits) in enumerate(sizes)]


@pytest.fixture
def load(nano_weights):
    return lambda: load_detector(DetectorConfig(weights=nano_weights, conf=0.2, device="cpu"))[0]


def same(found, expected):
    assert found.frame is expected.frame
    assert found.warmup == expected.warmup
    for name in ("boxes", "scores", "labels"):
        first, second = (getattr(item.detections, name) for item in (found, expected))
        np.testing.assert_array_equal(first, second)


def alone(load, sequence):
    return list(load().detect([(frame,) for frame in sequence]))


def of_rounds(shared, rounds):
    """Returns the detections of each sequence, and the tags of the rounds."""
    found, tags = [[], [], []], []
    for items, tag in shared.detect(rounds):
        tags.append(tag)
        for number, item in items:
            found[number].append(item)
    return found, tags


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["sequential", "threaded", "delayed"])
def test_frames_of_other_sizes_and_depths_share_the_network(schedule, load, mixed, monkeypatch):
    expected = [alone(load, sequence) for sequence in mixed]
    batches = []
    step = stream_module.extract_batched

    def counting(streams, inputs):
        batches.append(len(streams))
        return step(streams, inputs)

    monkeypatch.setattr("detectors.inference.multi_stream.extract_batched", counting)
    monkeypatch.setattr(streaming.StreamingDetector, "schedule", schedule)
    rounds = [(list(enumerate(group)), tag) for tag, group in enumerate(zip(*mixed, strict=True))]
    found, tags = of_rounds(MultiStreamDetector(load(), 3), rounds)
    assert batches == [2, 1] * 6
    assert tags == list(range(6))
    for one, other in zip(found, expected, strict=True):
        assert len(one) == len(other) == 6
        list(map(same, one, other))
    assert sum(len(item.detections) for item in found[0])


def test_each_phase_has_a_thread_if_scheduled_so(load, mixed, monkeypatch):
    threads = {"preprocess": set(), "join": set()}
    for name in threads:
        method = getattr(streaming.StreamingDetector, name)

        def noting(self, argument, *, name=name, method=method):
            threads[name].add(threading.current_thread().name)
            return method(self, argument)

        monkeypatch.setattr(streaming.StreamingDetector, name, noting)
    monkeypatch.setattr(streaming.StreamingDetector, "schedule", "threaded")
    monkeypatch.setattr(streaming.StreamingDetector, "joins_at_once", 1)
    rounds = [([(0, a), (1, b)], None) for a, b in zip(*mixed[:2], strict=True)]
    of_rounds(MultiStreamDetector(load(), 2), rounds)
    assert threads == {"preprocess": {"features"}, "join": {threading.current_thread().name}}

    monkeypatch.setattr(streaming.StreamingDetector, "joins_at_once", 3)
    threads["join"].clear()
    of_rounds(MultiStreamDetector(load(), 2), rounds)
    assert {name.rstrip("0123456789") for name in threads["join"]} <= {"join_"}
    assert len(threads["join"]) >= 1


def test_a_round_without_frames_returns_its_tag(load):
    assert list(MultiStreamDetector(load(), 2).detect([([], "a tag")])) == [([], "a tag")]


def test_a_sequence_that_has_ended_leaves_no_state_and_the_others_theirs(load, mixed):
    shared = MultiStreamDetector(load(), 2)
    of_rounds(shared, [(list(enumerate(group)), None) for group in zip(*mixed[:2], strict=True)])
    shared.end(0)
    ((first,), (second,), _), _ = of_rounds(shared, [([(0, mixed[0][0])], None), ([(1, mixed[1][0])], None)])
    assert (first.warmup, second.warmup) == (True, False)
