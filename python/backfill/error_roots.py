"""The roots of this package's exceptions, which the modules that hold the others import."""

from __future__ import annotations


class BackfillError(Exception):
    """The root of all exceptions that backfill raises on purpose."""


class ConfigurationError(BackfillError, ValueError):
    """A setting of a client, a worker or the shell that cannot be used; the message names it and its limits."""
