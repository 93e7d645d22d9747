"""A database of its own for each test that asks, cloned from a migrated template and dropped at its end."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from backfill.storage.connection import connect
from backfill.storage.schema.migrate import migrate


def _name(kind: str) -> str:
    return f"backfill_{kind}_{os.getpid()}_{uuid.uuid4().hex[:8]}"


def _run(server_dsn: str, command: str, *names: str) -> None:
    with psycopg.connect(server_dsn, autocommit=True) as connection:
        connection.execute(sql.SQL(command).format(*map(sql.Identifier, names)))


@pytest.fixture(scope="session")
def migrated_template(server_dsn: str) -> Iterator[str]:
    """The name of a database with the schema, made once a session; nobody may stay connected to it."""
    name = _name("template")
    _run(server_dsn, "create database {}", name)

    async def fill() -> None:
        async with await connect(make_conninfo(server_dsn, dbname=name)) as connection:
            await migrate(connection, schema="graphile_worker")

    asyncio.run(fill())
    yield name
    _run(server_dsn, "drop database {} with (force)", name)


@pytest.fixture
def empty_dsn(server_dsn: str) -> Iterator[str]:
    """A DSN of a new, empty database."""
    name = _name("empty")
    _run(server_dsn, "create database {}", name)
    yield make_conninfo(server_dsn, dbname=name)
    _run(server_dsn, "drop database {} with (force)", name)


@pytest.fixture
def dsn(server_dsn: str, migrated_template: str) -> Iterator[str]:
    """A DSN of a new database that has the queue's schema, graphile_worker."""
    name = _name("test")
    _run(server_dsn, "create database {} template {}", name, migrated_template)
    yield make_conninfo(server_dsn, dbname=name)
    _run(server_dsn, "drop database {} with (force)", name)
