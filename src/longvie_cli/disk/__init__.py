"""Files that survive: written in one step, hashed, bounded when read, kept inside their folder."""
