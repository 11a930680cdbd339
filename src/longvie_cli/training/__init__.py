"""Training of the embedded model: from worlds to the folder that the package ships."""
