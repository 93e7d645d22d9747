"""Synchronous libraries that hold a connection, each with its own way to begin, commit, undo and read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import django
import django.conf
import django.db
import psycopg
import psycopg2
import sqlalchemy
from django.db import transaction
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy.orm import Session, scoped_session, sessionmaker


class Host(ABC):
    """A library's connection. Without `autocommit`, its first statement begins a transaction.

    Attributes:
        given: what callers give to the client as `connection`.
        refused: the class of the errors that the client raises for the server's; that of `error` if it is empty.
    """

    given: Any
    error: type[Exception]
    refused: type[Exception] | tuple[type[Exception], ...] = ()

    @abstractmethod
    def ask(self, text: str) -> Any:
        """The only value of a statement without parameters, run as the library's users run theirs."""

    @abstractmethod
    def commit(self) -> None:
        """Commit as the library's users do."""

    @abstractmethod
    def rollback(self) -> None:
        """Undo as the library's users do."""

    @abstractmethod
    def savepoint(self) -> AbstractContextManager[object]:
        """A savepoint, which is undone at an error."""


class SQLAlchemySession(Host):
    """A session of SQLAlchemy."""

    error = sqlalchemy.exc.DBAPIError
    refused = (psycopg.Error, psycopg2.Error)

    def __init__(self, session: Any) -> None:
        self.given = session

    def ask(self, text: str) -> Any:
        return self.given.execute(sqlalchemy.text(text)).scalar()

    def commit(self) -> None:
        self.given.commit()

    def rollback(self) -> None:
        self.given.rollback()

    def savepoint(self) -> AbstractContextManager[object]:
        block: AbstractContextManager[object] = self.given.begin_nested()
        return block


class Psycopg2(Host):
    """A connection of psycopg2."""

    error = psycopg2.Error

    def __init__(self, connection: Any) -> None:
        self.given = connection

    def ask(self, text: str) -> Any:
        with self.given.cursor() as cursor:
            cursor.execute(text)
            return cursor.fetchone()[0]

    def commit(self) -> None:
        self.given.commit()

    def rollback(self) -> None:
        self.given.rollback()

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        with self.given.cursor() as cursor:
            cursor.execute("savepoint theirs")
            try:
                yield
            except Exception:
                cursor.execute("rollback to savepoint theirs")
                raise


class Django(Host):
    """A connection of Django's, in an `atomic` block that this enters at the first use."""

    error = django.db.Error

    def __init__(self, alias: str, *, autocommit: bool) -> None:
        self.given = self._connection = django.db.connections[alias]
        self._alias, self._autocommit = alias, autocommit
        self._block: Any = None
        self.begin()

    def begin(self) -> None:
        """Enter a block, unless the host is one in autocommit."""
        if not self._autocommit:
            self._block = transaction.atomic(using=self._alias)
            self._block.__enter__()

    def end(self, error: type[Exception] | None) -> None:
        """Leave the block, as by an error if there is one."""
        block, self._block = self._block, None
        if block is not None:
            block.__exit__(error, None, None)

    def ask(self, text: str) -> Any:
        with self._connection.cursor() as cursor:
            cursor.execute(text)
            return cursor.fetchone()[0]

    def commit(self) -> None:
        self.end(None)
        self.begin()

    def rollback(self) -> None:
        self.end(ZeroDivisionError)
        self.begin()

    def savepoint(self) -> AbstractContextManager[object]:
        block: AbstractContextManager[object] = transaction.atomic(using=self._alias)
        return block


if not django.conf.settings.configured:
    django.conf.settings.configure(
        USE_TZ=True, LOGGING_CONFIG=None, DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3"}}
    )
    django.setup()


@contextmanager
def django_alias(dsn: str, alias: str = "queue") -> Iterator[str]:
    """A database of Django's by its alias."""
    parts = conninfo_to_dict(dsn)
    mine = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parts["dbname"],
        "USER": parts["user"],
        "PASSWORD": parts.get("password", ""),
        "HOST": parts["host"],
        "PORT": str(parts.get("port", "")),
    }
    settings = django.db.connections.configure_settings(
        {"default": {"ENGINE": "django.db.backends.dummy"}, alias: mine}
    )
    django.db.connections.settings[alias] = settings[alias]
    try:
        yield alias
    finally:
        django.db.connections[alias].close()
        del django.db.connections[alias]
        del django.db.connections.settings[alias]


def url_of(dsn: str, driver: str) -> sqlalchemy.URL:
    """SQLAlchemy's address of a database."""
    parts = conninfo_to_dict(dsn)
    query = {"host": str(parts["host"])}
    return sqlalchemy.URL.create(
        f"postgresql+{driver}",
        str(parts["user"]),
        database=str(parts["dbname"]),
        port=int(str(parts.get("port", 5432))),
        password=None if parts.get("password") is None else str(parts["password"]),
        query=query,
    )


@contextmanager
def engine_of(dsn: str, driver: str, **options: Any) -> Iterator[sqlalchemy.Engine]:
    """An engine of SQLAlchemy."""
    engine = sqlalchemy.create_engine(url_of(dsn, driver), **options)
    try:
        yield engine
    finally:
        engine.dispose()


@contextmanager
def host_of(name: str, dsn: str, *, autocommit: bool = False) -> Iterator[Host]:
    """A host by its name, such as "session psycopg2"."""
    kind, _, driver = name.partition(" ")
    if kind == "psycopg2":
        connection = psycopg2.connect(dsn)
        connection.autocommit = autocommit
        try:
            yield Psycopg2(connection)
        finally:
            connection.close()
        return
    if kind == "django":
        with django_alias(dsn) as alias:
            host = Django(alias, autocommit=autocommit)
            try:
                yield host
            finally:
                host.end(ZeroDivisionError)
        return
    with engine_of(dsn, driver, **({"isolation_level": "AUTOCOMMIT"} if autocommit else {})) as engine:
        if kind == "connection":
            with engine.connect() as found:
                yield SQLAlchemySession(found)
        elif kind == "scoped":
            registry = scoped_session(sessionmaker(engine))
            try:
                yield SQLAlchemySession(registry)
            finally:
                registry.remove()
        else:
            with Session(engine) as session:
                yield SQLAlchemySession(session)


SQLALCHEMY = [
    "session psycopg", "session psycopg2", "connection psycopg", "connection psycopg2", "scoped psycopg",
]  # fmt: skip
HOSTS = [*SQLALCHEMY, "psycopg2", "django"]
