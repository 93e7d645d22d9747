"""The heartbeat's thread, in a native form and in a Python form."""
