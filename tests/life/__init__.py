"""A job's whole life: a small model of the queue, and what is needed to hold it against the real one."""
