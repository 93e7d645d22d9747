"""Execution: the jobs that a worker holds, their attempts, and how each attempt ended."""
