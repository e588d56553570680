"""Graphs for one size of input equal the network that they are made of."""

from __future__ import annotations

import pytest
import torch

from detectors.backends import graphs
from detectors.networks.tridos.memory import MemoryReader


@pytest.fixture
def reader():
    return MemoryReader(8).eval()


@pytest.mark.parametrize(("height", "width"), [(8, 8), (20, 16), (40, 36)])
def test_a_memory_that_is_read_in_chunks_gives_the_same(reader, height, width):
    noise = torch.Generator().manual_seed(0)
    keys, values, queries, own = (
        torch.randn(2, channels, height, width, generator=noise) for channels in (4, 8, 4, 8)
    )
    chunked = graphs.ChunkedReader(reader, height * width)
    with torch.no_grad():
        expected = reader((keys, values), (queries, own))
        torch.testing.assert_close(chunked((keys, values), (queries, own)), expected, rtol=1e-5, atol=1e-5)


def test_chunks_are_of_equal_size_and_bounded(reader):
    for width, height in ((640, 512), (1280, 736), (1920, 1088), (4096, 3072)):
        cells = width * height // 64
        chunk = graphs.ChunkedReader(reader, cells).chunk
        assert cells % chunk == 0
        assert graphs.CHUNK_CELLS / 2 <= chunk <= graphs.CHUNK_CELLS


def test_the_graphs_of_larger_inputs_read_in_chunks_and_others_in_one_piece(nano):
    small, large = (graphs.graphs(nano, size)["join"].module for size in ((64, 64), (384, 256)))
    assert isinstance(small.neck.memory, MemoryReader)
    assert isinstance(large.neck.memory, graphs.ChunkedReader)
    assert isinstance(nano.neck.memory, MemoryReader)  # the network itself does not change
