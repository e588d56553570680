"""Windows hold the last items of a sequence, independently of the batches."""

from __future__ import annotations

import pytest
import torch

from pipeline.stages.ring_buffer import RingBuffer, window_indices


@pytest.mark.parametrize(
    ("position", "length", "stride", "expected"),
    [
        (0, 5, 1, [0, 0, 0, 0, 0]),
        (2, 5, 1, [0, 0, 0, 1, 2]),
        (4, 5, 1, [0, 1, 2, 3, 4]),
        (9, 3, 1, [7, 8, 9]),
        (9, 3, 4, [1, 5, 9]),
        (5, 3, 4, [0, 1, 5]),
        (3, 1, 1, [3]),
    ],
    ids=["start", "warm-up", "first full", "later", "stride", "stride at the start", "length one"],
)
def test_a_window_ends_at_its_position_and_repeats_the_first_item(position, length, stride, expected):
    assert window_indices(position, length, stride=stride) == expected


@pytest.mark.parametrize("seed", range(20))
def test_ring_buffer_and_window_indices_agree_for_any_batches(seed):
    chance = torch.Generator().manual_seed(seed)
    count, length = (int(n) for n in torch.randint(1, 30, (2,), generator=chance))
    length = min(length, 8)
    items = torch.randn(count, 2, 3, generator=chance)
    cuts = torch.randint(0, count, (4,), generator=chance).unique().tolist()
    batches = [part for part in items.tensor_split(cuts) if len(part)]
    ring = RingBuffer(length)
    windows = torch.cat([ring.push(part) for part in batches])
    torch.testing.assert_close(
        windows, torch.stack([items[window_indices(t, length)] for t in range(count)]), rtol=0, atol=0
    )


def test_the_latest_item_is_the_one_pushed_last():
    ring = RingBuffer(3)
    assert ring.latest is None
    ring.push(torch.arange(5.0))
    assert ring.latest == 4


def test_reset_starts_a_new_sequence():
    ring = RingBuffer(3)
    ring.push(torch.arange(5.0))
    ring.reset()
    assert ring.latest is None
    assert ring.push(torch.tensor([7.0])).tolist() == [[7, 7, 7]]


def test_returned_windows_do_not_change_later():
    ring = RingBuffer(3)
    first = ring.push(torch.tensor([1.0, 2.0]))
    kept = first.clone()
    ring.push(torch.tensor([3.0, 4.0]))
    torch.testing.assert_close(first, kept, rtol=0, atol=0)


def test_a_length_of_zero_is_refused():
    with pytest.raises(ValueError, match="length = 0"):
        RingBuffer(0)


def test_windows_keep_the_memory_layout_of_their_items():
    ring, layout = RingBuffer(3), torch.channels_last
    for count in (1, 2, 1):
        items = torch.randn(count, 4, 5, 6).contiguous(memory_format=layout)
        windows = ring.push(items)
        assert all(part.is_contiguous(memory_format=layout) for part in windows.unbind(1))
