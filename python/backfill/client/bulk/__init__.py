"""Bulk: many jobs in one call, from an iterable to COPY."""
