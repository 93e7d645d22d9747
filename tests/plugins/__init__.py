"""Fixtures, a file a concern."""
