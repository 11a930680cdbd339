"""Models that are fetched: which, from where, under which licence, and what is here."""
