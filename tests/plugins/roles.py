"""Roles that own nothing, with the printed grants of a duty or with none, dropped at the test's end."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from typing import Any, cast

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from backfill.storage.grants import grants_script
from contract.scripts import run_script

SCHEMA = "graphile_worker"
NewRole = Callable[..., str]


@pytest.fixture
def role(dsn: str) -> Iterator[NewRole]:
    """Make a role with the grants of a duty; gives a DSN with which it comes to the test's database."""
    made: list[sql.Identifier] = []

    def make(duty: str | None, name: str = "", schema: str = SCHEMA) -> str:
        name = f"{name}backfill_{os.getpid()}_{uuid.uuid4().hex[:8]}"
        made.append(sql.Identifier(name))
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(sql.SQL("create role {} login password 'secret'").format(made[-1]))
        if duty is not None:
            run_script(dsn, grants_script(cast("Any", duty), name, schema))
        return make_conninfo(dsn, user=name, password="secret")

    yield make
    with psycopg.connect(dsn, autocommit=True) as connection:
        for name in made:
            connection.execute(sql.SQL("drop owned by {}").format(name))
            connection.execute(sql.SQL("drop role {}").format(name))
