"""What a caller may lend to a client: what is of the other kind is refused by name, before a library is imported."""

from __future__ import annotations

import pytest
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from backfill.client.carrier import at_once, lent
from backfill.errors import BackfillError, ConfigurationError


def kind(module: str, name: str) -> object:
    """An object whose class, of somebody's program, is derived from a class of a library."""
    base = type(name, (), {"__module__": module})
    return type("Own", (base,), {"__module__": "app.db"})()


@pytest.mark.parametrize(
    ("given", "sync", "other"),
    [
        (AsyncSession(), True, "BackfillClient"),
        (Session(), False, "backfill.sync.Client"),
        (kind("sqlalchemy.ext.asyncio.engine", "AsyncEngine"), True, "BackfillClient"),
        (kind("asyncpg.pool", "PoolConnectionProxy"), True, "BackfillClient"),
        (kind("django.db.backends.postgresql.base", "DatabaseWrapper"), False, "backfill.sync.Client"),
        (kind("psycopg2.extensions", "connection"), False, "backfill.sync.Client"),
    ],
)
def test_the_other_kind_is_refused_by_name(given: object, sync: bool, other: str) -> None:
    """The message names the class, and the client that takes it."""
    with pytest.raises(ConfigurationError, match=f"use it with {other}$") as caught:
        lent(given, sync=sync)
    assert type(given).__qualname__ in str(caught.value)


@pytest.mark.parametrize("given", [5, "postgresql://", object(), kind("sqlalchemyx", "Session")])
@pytest.mark.parametrize("sync", [True, False])
def test_what_is_no_connection_is_refused_by_its_class(given: object, sync: bool) -> None:
    """The message says what was expected, and never shows what was given: it may hold a password."""
    with pytest.raises(ConfigurationError, match=r"^connection: expected an? .* got .*") as caught:
        lent(given, sync=sync)
    assert "postgresql://" not in str(caught.value)


def test_a_coroutine_that_waits_is_not_run_without_a_loop() -> None:
    """What a synchronous connection cannot do is said, and the coroutine is closed."""

    class Waits:
        def __await__(self):  # type: ignore[no-untyped-def]
            yield self

    async def waits() -> None:
        await Waits()

    async def says() -> str:
        return "done"

    with pytest.raises(BackfillError, match="cannot wait for Waits"):
        at_once(waits())
    assert at_once(says()) == "done"
