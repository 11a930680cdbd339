"""Dense (depth) and sparse (track) controls: extraction, rendering, files."""
