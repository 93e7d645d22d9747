"""Handlers with a session of SQLAlchemy of their own, in whose transaction their job is completed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, create_engine, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from backfill import TaskRegistry, WorkerContext
from drivers_hosts import url_of
from own_transactions import ADD

ADDED = text(ADD.replace("%s", ":number"))
KINDS = ["async psycopg", "async asyncpg", "thread psycopg", "thread psycopg2"]


@asynccontextmanager
async def session_of(dsn: str, driver: str, kind: type[Any] = AsyncSession, **options: Any) -> AsyncIterator[Any]:
    """A session, or a connection, on an engine of its own."""
    engine = create_async_engine(url_of(dsn, driver), **options)
    try:
        async with engine.connect() if kind is AsyncConnection else kind(engine) as session:
            yield session
    finally:
        await engine.dispose()


@contextmanager
def sync_session_of(dsn: str, driver: str, kind: type[Any] = Session, **options: Any) -> Iterator[Any]:
    """A synchronous session, or connection, on an engine of its own."""
    engine = create_engine(url_of(dsn, driver), **options)
    try:
        with engine.connect() if kind is Connection else kind(engine) as session:
            yield session
    finally:
        engine.dispose()


@dataclass
class Adding:
    """A task that adds its payload to the sum by a session of its own, and enqueues a job with it.

    Attributes:
        dsn: the database.
        kind: one of `KINDS`.
        connection: whether the handler has a connection in place of a session.
        before: called before the block is opened.
        within: called in the block after the sum was written; what it raises leaves the block.
        options: of the task.
        engine: options of the engine.
        enqueues: whether it enqueues a job.
        runs: the attempts that ran.
    """

    dsn: str
    kind: str
    connection: bool = False
    before: Callable[[Any], Any] = lambda _: None
    within: Callable[[Any], Any] = lambda _: None
    options: dict[str, Any] = field(default_factory=dict)
    engine: dict[str, Any] = field(default_factory=dict)
    enqueues: bool = True
    runs: list[int] = field(default_factory=list)

    @property
    def tasks(self) -> TaskRegistry[None]:
        """The task `add`."""
        tasks = TaskRegistry[None]()
        place, driver = self.kind.split()

        async def add(number: int, ctx: WorkerContext[None]) -> dict[str, int]:
            self.runs.append(ctx.attempt)
            kind = AsyncConnection if self.connection else AsyncSession
            async with session_of(self.dsn, driver, kind, **self.engine) as session:
                await session.run_sync(self.before)
                async with ctx.transaction(session) as tx:
                    await session.execute(ADDED, {"number": number})
                    if self.enqueues:
                        await tx.enqueue("more", number)
                    await session.run_sync(self.within)
                    tx.complete({"added": number})
            return {"not": 0}  # what is returned is not kept

        def add_in_thread(number: int, ctx: WorkerContext[None]) -> dict[str, int]:
            self.runs.append(ctx.attempt)
            kind = Connection if self.connection else Session
            with sync_session_of(self.dsn, driver, kind, **self.engine) as session:
                self.before(session)
                with ctx.transaction(session) as tx:
                    session.execute(ADDED, {"number": number})
                    if self.enqueues:
                        tx.enqueue("more", number)
                    self.within(session)
                    tx.complete({"added": number})
            return {"not": 0}  # what is returned is not kept

        tasks.task("add", **self.options)(add if place == "async" else add_in_thread)
        return tasks
