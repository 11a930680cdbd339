"""Weights on disk: their names in every published form, planned whole, then loaded or converted."""
