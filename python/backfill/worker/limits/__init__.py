"""Limits: what a worker does so that a task's jobs keep to a limit or a rate of the whole fleet."""
