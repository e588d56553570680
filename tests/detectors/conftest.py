"""Fixtures of the tests of networks."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session", autouse=True)
def temporary_exports(own_cache):
    """Exports graphs to a temporary folder in all tests of networks."""
