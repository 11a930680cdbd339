"""A run on disk: where everything lies, when a clip exists, and who may write."""
