"""Handlers in processes: a pool of child processes that run calls one at a time. It knows nothing of jobs and tasks."""
