"""Ends: how jobs finished, and the wait for a result."""
