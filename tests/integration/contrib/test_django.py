"""What is Django's own: blocks that are broken, its other databases, its hooks after a commit."""

from __future__ import annotations

from collections.abc import Iterator

import django.db
import psycopg
import pytest
from django.db import transaction
from django.db.transaction import TransactionManagementError

from at_once import Client
from backfill import NewJob
from backfill.errors import BulkEnqueueError, ConfigurationError
from sync_hosts import django_alias


@pytest.fixture
def alias(dsn: str) -> Iterator[str]:
    """A database of Django's that has the queue."""
    with django_alias(dsn) as found:
        yield found


def count(dsn: str) -> int:
    """How many jobs another connection sees."""
    with psycopg.connect(dsn) as connection:
        [(found,)] = connection.execute("select count(*) from graphile_worker._private_jobs").fetchall()
        return int(found)


def test_a_broken_block_gives_djangos_own_error(alias: str, dsn: str) -> None:
    """Nothing is sent in a block that Django will undo."""
    client = Client(django.db.connections[alias])
    with transaction.atomic(using=alias):
        client.enqueue("send", {})
        transaction.set_rollback(True, using=alias)
        with pytest.raises(TransactionManagementError):
            client.enqueue("send", {})
        with pytest.raises(BulkEnqueueError) as raised:
            client.enqueue_bulk([NewJob("send", {})])
    assert isinstance(raised.value.__cause__, TransactionManagementError)
    assert count(dsn) == 0


def test_the_jobs_are_there_when_django_calls_its_hooks(alias: str, dsn: str) -> None:
    """`on_commit` runs after the commit by which the jobs came."""
    seen: list[int] = []
    with transaction.atomic(using=alias):
        transaction.on_commit(lambda: seen.append(count(dsn)), using=alias)
        Client(django.db.connections[alias]).enqueue_bulk([NewJob("send", {})] * 3)
        assert count(dsn) == 0
    assert seen == [3]


def test_a_durable_block_may_follow(alias: str, dsn: str) -> None:
    """Outside of blocks a call leaves Django without a transaction."""
    client = Client(django.db.connections[alias])
    client.enqueue_bulk([NewJob("send", {})])
    with transaction.atomic(using=alias, durable=True):
        client.enqueue("send", {})
    assert count(dsn) == 2


def test_without_autocommit_the_program_commits(alias: str, dsn: str) -> None:
    """A program that has turned autocommit off commits by itself, after bulk calls too."""
    connection = django.db.connections[alias]
    connection.set_autocommit(False)
    client = Client(connection)
    client.enqueue_bulk([NewJob("send", {})] * 2)
    client.enqueue("send", {}, job_key="key")
    assert count(dsn) == 0
    connection.commit()
    assert count(dsn) == 3


def test_the_default_connections_database_is_refused_if_it_is_another() -> None:
    """`django.db.connection` is found by its alias; this program's default is SQLite."""
    with pytest.raises(ConfigurationError, match=r"Django's database 'default' is sqlite, .* connections"):
        Client(django.db.connection).enqueue("send", {})


def test_djangos_connection_itself_is_taken(dsn: str) -> None:
    """The proxy of the default database, as programs import it."""
    before = django.db.connections.settings["default"]
    del django.db.connections["default"]
    try:
        with django_alias(dsn, "default"):
            Client(django.db.connection).enqueue("send", {})
    finally:
        django.db.connections.settings["default"] = before
    assert count(dsn) == 1


def test_other_things_of_djangos_are_refused() -> None:
    """The message says what is expected."""
    with pytest.raises(ConfigurationError, match=r"expected a synchronous connection, .* got django"):
        Client(django.db.connections).enqueue("send", {})


def test_a_connection_that_atomic_does_not_know_is_refused(alias: str, dsn: str) -> None:
    """`atomic` would act on the thread's own connection, so a bulk call on a copy of it would not be whole."""
    copy = django.db.connections[alias].copy()
    try:
        with pytest.raises(ConfigurationError, match=r"not this thread's connections\['queue'\]"):
            Client(copy).enqueue_bulk(NewJob("send", {"n": 1 // (2500 - n)}) for n in range(3000))
    finally:
        copy.close()
    assert count(dsn) == 0
