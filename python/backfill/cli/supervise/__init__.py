"""Worker processes under one supervisor: how they are started, watched, restarted, recycled and stopped."""
