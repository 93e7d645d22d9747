"""Express: short jobs that are held by the locks of their rows alone, run, and deleted in the same transaction."""
