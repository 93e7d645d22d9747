"""The client's bulk verb, which adds many jobs in one call, from an iterable to COPY."""
