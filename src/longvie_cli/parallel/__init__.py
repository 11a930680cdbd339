"""Processes that work on one thing: where each stands, and how they share a clip."""
