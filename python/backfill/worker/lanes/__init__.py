"""Lanes: shares of a worker's slots, and where each looks for its next jobs."""
