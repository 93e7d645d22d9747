"""The server that tests talk to: the one that DATABASE_URL names, else PostgreSQL from the embedded wheel."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from backfill.embedded import EmbeddedPostgres


@pytest.fixture(scope="session")
def server_dsn() -> Iterator[str]:
    """A DSN of the server's maintenance database, for a role that may create databases."""
    given = os.environ.get("DATABASE_URL")
    if given:
        yield given
        return
    with EmbeddedPostgres(max_connections=300) as server:
        yield server.dsn
