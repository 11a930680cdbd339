"""Commands run on a preset of a few thousand weights; tests/shipped has the one that is shipped."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def small(small_preset: None) -> None:
    """Every test here, and what its module makes once, uses the small preset."""
