"""The recipe of the embedded model, from worlds to assets/tiny."""
