"""The heartbeat's thread, in its native form and in Python."""
