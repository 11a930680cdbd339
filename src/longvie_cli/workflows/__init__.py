"""One file a command: the story of the job, resumable; no flags, no printing."""
