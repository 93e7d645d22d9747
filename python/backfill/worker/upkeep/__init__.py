"""Upkeep: what a worker does now and then for the whole queue, beside running jobs."""
