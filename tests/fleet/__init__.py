"""Worker processes that tests start, kill and stop."""
