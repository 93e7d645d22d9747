"""What a fresh schema of ours is like, and databases that Graphile Worker itself, from npm, has set up."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import LiteralString, cast

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from contract.snapshot import Snapshot, snapshot


def install(node_modules: Path, dsn: str, schema: str = "graphile_worker") -> None:
    """Have Graphile Worker make or migrate its schema."""
    done = subprocess.run(
        [str(node_modules / ".bin" / "graphile-worker"), "--schema", schema, "--schema-only"],
        env=node_environment(dsn),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def node_environment(dsn: str) -> dict[str, str]:
    """The variables by which Node's driver finds a database: it cannot read every connection string that libpq can."""
    names = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD", "dbname": "PGDATABASE"}
    given = conninfo_to_dict(dsn)
    environment = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    return environment | {names[key]: str(value) for key, value in given.items() if key in names}


def _run(server_dsn: str, command: str) -> None:
    with psycopg.connect(server_dsn, autocommit=True) as connection:
        connection.execute(cast("LiteralString", command))


@pytest.fixture(scope="session")
def fresh(server_dsn: str, migrated_template: str) -> Snapshot:
    """All that can be told of the schema that an empty database gets."""
    name = f"backfill_fresh_{os.getpid()}_{uuid.uuid4().hex[:8]}"
    _run(server_dsn, f"create database {name} template {migrated_template}")
    found = snapshot(make_conninfo(server_dsn, dbname=name), "graphile_worker")
    _run(server_dsn, f"drop database {name} with (force)")
    return found


@pytest.fixture(scope="module")
def shared_dsn(server_dsn: str) -> Iterator[str]:
    """A DSN of a database that is empty at first, for the tests of one file: each makes a schema of its own."""
    name = f"backfill_shared_{os.getpid()}_{uuid.uuid4().hex[:8]}"
    _run(server_dsn, f"create database {name}")
    yield make_conninfo(server_dsn, dbname=name)
    _run(server_dsn, f"drop database {name} with (force)")


@pytest.fixture(scope="session")
def node_template(server_dsn: str, node_modules: Path) -> Iterator[str]:
    """The name of a database with Graphile Worker's own schema, made once a session."""
    name = f"backfill_node_template_{os.getpid()}_{uuid.uuid4().hex[:8]}"
    _run(server_dsn, f"create database {name}")
    install(node_modules, make_conninfo(server_dsn, dbname=name))
    yield name
    _run(server_dsn, f"drop database {name} with (force)")


@pytest.fixture
def node_dsn(server_dsn: str, node_template: str) -> Iterator[str]:
    """A DSN of a new database that Graphile Worker 0.17.3 set up, and nobody else touched."""
    name = f"backfill_node_{os.getpid()}_{uuid.uuid4().hex[:8]}"
    _run(server_dsn, f"create database {name} template {node_template}")
    yield make_conninfo(server_dsn, dbname=name)
    _run(server_dsn, f"drop database {name} with (force)")
