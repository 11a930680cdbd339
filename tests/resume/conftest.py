"""Runs are made with a preset of a few thousand weights; tests/shipped has the shipped one."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def small(small_preset: None) -> None:
    """Every test here, and what its module makes once, uses the small preset."""
