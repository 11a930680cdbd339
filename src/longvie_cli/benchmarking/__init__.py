"""How fast a preset makes clips on this machine, engine by engine, and how fast it could."""
