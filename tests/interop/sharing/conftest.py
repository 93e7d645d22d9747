"""One queue with a program of Node's, of both versions, on a schema that it made, and on one that we made."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from backfill import BackfillClient
from backfill.storage.connection import connect
from backfill.storage.schema.migrate import migrate
from shared_queue import Sharing

from plugins.crossings import Crossings
from plugins.node import Node
from plugins.partner import PACKAGES, partner

CASES = [f"{version}, {maker} first" for version in PACKAGES for maker in ("ours", "Node's")]
"""Which version of Node's, and who made the schema first; a file of tests may take some of these."""


def _run(server_dsn: str, command: str, *names: str) -> None:
    with psycopg.connect(server_dsn, autocommit=True) as connection:
        connection.execute(sql.SQL(command).format(*map(sql.Identifier, names)))


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    """Which version, and who came first."""
    return str(request.param)


@pytest.fixture(scope="session")
def template_of(server_dsn: str, node_modules: Path, migrated_template: str) -> Iterator[Callable[[str], str]]:
    """Gives a case's database to clone, which is made once a session."""
    made: dict[str, str] = {}

    async def fill(version: str, dsn: str) -> None:
        async with partner(Node(node_modules, dsn), version, Crossings()):
            pass
        async with await connect(dsn) as connection:
            await migrate(connection, schema="graphile_worker")

    def template(case: str) -> str:
        version, _, maker = case.partition(", ")
        if maker.startswith("ours"):
            return migrated_template
        if case not in made:
            made[case] = f"backfill_shared_{os.getpid()}_{uuid.uuid4().hex[:8]}"
            _run(server_dsn, "create database {}", made[case])
            asyncio.run(fill(version, make_conninfo(server_dsn, dbname=made[case])))
        return made[case]

    yield template
    for name in made.values():
        _run(server_dsn, "drop database {} with (force)", name)


@pytest.fixture
def dsn(server_dsn: str, template_of: Callable[[str], str], case: str) -> Iterator[str]:
    """A DSN of a new database of the case."""
    name = f"backfill_test_{os.getpid()}_{uuid.uuid4().hex[:8]}"
    _run(server_dsn, "create database {} template {}", name, template_of(case))
    yield make_conninfo(server_dsn, dbname=name)
    _run(server_dsn, "drop database {} with (force)", name)


@pytest.fixture
async def sharing(node_modules: Path, dsn: str, case: str) -> AsyncIterator[Sharing]:
    """A queue that a program of Node's and a client of ours share."""
    crossings = Crossings()
    version, _, _ = case.partition(", ")
    async with (
        partner(Node(node_modules, dsn), version, crossings) as node,
        BackfillClient(dsn) as client,
        await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection,
    ):
        yield Sharing(dsn, node, client, connection, crossings)
