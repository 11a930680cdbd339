"""A decided job carried out: its run folder opened, its clips made, its file delivered."""
