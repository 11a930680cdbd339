"""A request decided to the last number before anything is written or loaded."""
