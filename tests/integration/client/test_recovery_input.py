"""What the verbs of recovery, which workers alone call, refuse."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from backfill.client.lent import ServicesClient
from backfill.errors import InvalidJobError


@pytest.fixture
async def client(dsn: str) -> AsyncIterator[ServicesClient]:
    """An open client."""
    async with ServicesClient(dsn) as one:
        yield one


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        ("recover_worker", ("w", "1")), ("recover_worker", ("w", None)), ("recover_worker", ("w", 2**63)),
        ("recover_worker", ("w", True)), ("recover_worker", ("w", 1.5)), ("recover_worker", ("a\0", 1)),
        ("is_first_worker", ("a\0",)), ("is_first_worker", (None,)),
    ],
)  # fmt: skip
async def test_workers_that_are_none(client: ServicesClient, verb: str, arguments: tuple[Any, ...]) -> None:
    """Refused before the database is asked."""
    with pytest.raises(InvalidJobError):
        await getattr(client, verb)(*arguments)


@pytest.mark.parametrize("age", [5, None, timedelta(-1), timedelta.max])
async def test_ages_that_are_none(client: ServicesClient, age: Any) -> None:
    """Also of what workers do by themselves."""
    with pytest.raises(InvalidJobError):
        await client.recover_abandoned(gone_for=age)
    with pytest.raises(InvalidJobError):
        await client.release_foreign_locks(queues=None, jobs=None, gone_for=age)
    if age is not None:
        with pytest.raises(InvalidJobError):
            await client.release_foreign_locks(queues=age, jobs=None)
        with pytest.raises(InvalidJobError):
            await client.release_foreign_locks(queues=None, jobs=age)
