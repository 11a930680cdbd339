"""The same examples on every machine and every day, and no database beside the tests."""

from __future__ import annotations

from hypothesis import settings

# Always the same inputs, so more of them would find nothing new.
settings.register_profile(
    "repeatable", max_examples=40, derandomize=True, database=None, deadline=None
)
settings.load_profile("repeatable")
