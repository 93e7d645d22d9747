"""Connection strings as people paste them, and connections of other programs."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backfill import BackfillClient, ConfigurationError, WorkerConfig
from backfill.client.carrier import lent
from backfill.storage.connection import resolve
from backfill.storage.pasted import is_function, pasted
from backfill.sync.connecting import resolved

PLAIN = "postgresql://me:s3cret@db.example:5433/app?sslmode=require"


class Url:
    """A URL object of SQLAlchemy: what it prints hides the password."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __str__(self) -> str:
        return self.render_as_string()

    def render_as_string(self, hide_password: bool = True) -> str:
        return self._text.replace("s3cret", "***") if hide_password else self._text


@given(
    scheme=st.sampled_from(["postgresql", "postgresql+psycopg", "postgresql+asyncpg", "postgres+psycopg2"]),
    before=st.sampled_from(["", " ", "\n", '"', "'", " '"]),
)
def test_what_people_paste_is_read(scheme: str, before: str) -> None:
    """A driver's name, quotes and whitespace around it: what is left is what libpq reads."""
    given = f"{before}{PLAIN.replace('postgresql', scheme)}{before[::-1]}"
    assert pasted("dsn", given) == PLAIN
    assert pasted("dsn", Url(given)) == PLAIN
    assert psycopg.conninfo.conninfo_to_dict(pasted("dsn", given))["password"] == "s3cret"


@pytest.mark.parametrize("text", [PLAIN, "postgres://h/d", "host=h dbname='a b' password='x y'", "service=app", ""])
def test_what_libpq_reads_stays_as_it_is(text: str) -> None:
    """Nothing is changed in it."""
    assert pasted("dsn", text) == text


def test_objects_are_read_wherever_a_connection_string_is_given() -> None:
    """By a client, a worker, and from a function that is asked for one."""
    url: Any = Url(PLAIN.replace("postgresql", "postgresql+psycopg"))
    assert BackfillClient(url)._dsn == PLAIN
    assert WorkerConfig(url).required_dsn() == PLAIN
    assert asyncio.run(resolve(lambda: url)) == PLAIN
    assert asyncio.run(resolve(SimpleNamespace(unicode_string=lambda: PLAIN))) == PLAIN  # type: ignore[arg-type]


def test_what_a_callable_gives_is_read_by_both_clients_alike() -> None:
    """An address of a settings class is a connection string, and what is none is refused by its class."""
    given = SimpleNamespace(unicode_string=lambda: PLAIN)
    assert resolved(lambda: given) == PLAIN  # type: ignore[arg-type, return-value]
    with pytest.raises(ConfigurationError, match="dsn: the callable gave int, expected a connection string"):
        resolved(lambda: 5)  # type: ignore[arg-type, return-value]


def test_a_hidden_password_is_refused() -> None:
    """It was printed, so the password is lost; the error says what to give."""
    with pytest.raises(ConfigurationError, match=r"dsn: its password is .*hide_password=False"):
        pasted("dsn", str(Url(PLAIN)))


@pytest.mark.parametrize("wrong", [None, 5, b"postgresql://x/y", {"NAME": "app", "PASSWORD": "s3cret"}, timedelta(1)])
def test_what_is_none_is_refused_by_its_type(wrong: object) -> None:
    """The error names what was given, and never shows it."""
    with pytest.raises(
        ConfigurationError, match=r"dsn: expected a connection string .* such as postgresql://"
    ) as caught:
        pasted("dsn", wrong)
    assert "s3cret" not in str(caught.value)
    assert not is_function(wrong)


@pytest.mark.parametrize(
    ("module", "name", "way"),
    [
        ("asyncpg.cursor", "Cursor", "expected an asynchronous connection"),
        ("sqlalchemy.ext.asyncio.session", "async_sessionmaker", "pass one of them"),
        ("sqlalchemy.pool.base", "_ConnectionFairy", "the session or the connection"),
        ("sqlalchemy.orm.session", "Session", "backfill.sync.Client"),
        ("psycopg2.extensions", "connection", "backfill.sync.Client"),
        ("django.db.backends.postgresql.base", "DatabaseWrapper", "backfill.sync.Client"),
        ("somebody.models", "Thing", "add_job"),
    ],
)
def test_connections_of_other_programs_are_refused_with_a_way_out(module: str, name: str, way: str) -> None:
    """The error names the class, and what to pass or to do."""
    kind = type(name, (), {"__module__": module})
    with pytest.raises(ConfigurationError, match=f"{module}.{name}") as caught:
        lent(kind(), sync=False)
    assert way in str(caught.value)
    derived = type("Own", (kind,), {"__module__": "app.db"})
    with pytest.raises(ConfigurationError, match=r"app.db.Own") as caught:
        lent(derived(), sync=False)
    assert way in str(caught.value)
