"""Connections of a client for blocks of a handler's code, each of which is one transaction.

Used by the transactions in which handlers complete their jobs. A block keeps its connection while the handler's code
runs, which may itself use the client. So blocks never take the client's last connection, and the others wait. Where the
client has one connection only, one block at a time has a connection of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from backfill.client.connect import ClientLife
from backfill.client.enqueue import EnqueueVerb, new_job
from backfill.client.gathering.rows import gathered
from backfill.client.prepare import (
    JobShape,
    Parameters,
    add_job_parameters,
    check_keywords,
    insert_job,
    shape_of,
    spec_of,
    status_of,
)
from backfill.errors import BackfillError, ConfigurationError
from backfill.jobs import EnqueueOutcome, EnqueueStatus, JobSpec, NewJob
from backfill.records import Job
from backfill.storage.arrays import text_array
from backfill.storage.connection import complete, connect, resolve
from backfill.storage.results import Result
from backfill.storage.rows import decode_jobs
from backfill.storage.types import Connection
from backfill.tasks import Task

_TRIES: Final = 5


class Blocks:
    """Gives connections of one client to blocks.

    Args:
        client: the client.
    """

    def __init__(self, client: ClientLife) -> None:
        self._client = client

    @cached_property
    def _free(self) -> asyncio.Semaphore:
        # One connection less than the pool has: a block beyond that would get one that is made for it alone.
        most = self._client._settings.max_size  # noqa: SLF001 - a class of the same package
        return asyncio.Semaphore(max(most - 1, 1))

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection in autocommit for one block; it waits while as many blocks are open as there are connections.

        Raises:
            DatabaseConnectionError: there was no connection in time.
            ClientClosedError: the client is closed.
        """
        async with self._free, self._client._own_connection(apart=True) as connection:  # noqa: SLF001 - see above
            yield connection

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """The same without a connection, for a block that makes its own one."""
        async with self._free:
            yield

    @property
    def schema(self) -> str:
        """The queue's schema."""
        return self._client.schema

    async def beside(self) -> Connection:
        """A connection that belongs to nobody's pool, so that it is there also while all others are in use.

        Raises:
            DatabaseConnectionError: the server cannot be reached.
        """
        return await connect(await self._dsn())

    async def conninfo(self) -> str:
        """The connection string of a connection like the client's own.

        Raises:
            ConfigurationError: the client has a pool that was given to it, and no connection string.
        """
        return complete(await self._dsn(), application_name="backfill")

    async def _dsn(self) -> str:
        dsn = self._client._settings.dsn  # noqa: SLF001 - see above
        if dsn is None:
            raise ConfigurationError(
                "client: it has no dsn of its own, and ctx.transaction() needs one here; make it by BackfillClient(dsn)"
            )
        return await resolve(dsn)


async def shaped(
    client: EnqueueVerb,
    job: NewJob[Any] | Task[Any, Any] | str,
    payload: Any,
    spec: JobSpec | None,
    keywords: Mapping[str, Any],
) -> Shaped:
    """Check what is to be enqueued in a thread's transaction, and ask the interceptors of the client's plugins.

    Raises what `BackfillClient.enqueue` raises before it uses the database.
    """
    check_keywords("enqueue", keywords)
    tell = keywords.get("notify", True)
    keywords = {name: value for name, value in keywords.items() if name != "notify"}
    new = new_job(job, payload)
    if client._scheduling is None:  # noqa: SLF001 - a class of the same package
        shape = shape_of(new.task, spec_of(new, spec, keywords), new.default_max_attempts, new.source)
        return Shaped(*shape.written(new.payload), new.source, tell)
    shape, encoded = await client._asked(client._scheduling, new, spec, keywords)  # noqa: SLF001 - see above
    return Shaped(shape, encoded, new.source, tell)


@dataclass(frozen=True, slots=True)
class Shaped:
    """A job that was checked, and is to be written.

    Attributes:
        shape: its settings.
        payload: its payload as JSON.
        source: its task; None where only the name is known.
        tell: whether the workers are notified.
    """

    shape: JobShape
    payload: bytes
    source: Task[Any, Any] | None
    tell: bool


def write_blocking(run: Callable[[str, Parameters], Result], job: Shaped) -> EnqueueOutcome[Any]:
    """Add a job in a transaction that is open in this thread.

    Args:
        run: runs a statement by its name in that transaction, and gives its result in binary format.
        job: the job.

    Raises:
        BackfillError: others wrote the key at the same time, again and again.

    The driver's errors come out, too.
    """
    shape = job.shape
    if not job.tell:
        for statement, name in (("create_tasks", shape.task), ("create_queues", shape.queue)):
            if name is not None:
                run(statement, (text_array([name]),))
    elif shape.key is None:
        rows = decode_jobs(run(*insert_job(shape, job.payload)))
        if rows:
            return EnqueueOutcome(EnqueueStatus.ADDED, rows[0].id, _named(rows[0], shape), source=job.source)
    for _ in range(_TRIES):
        if job.tell:
            statement, parameters = "add_job", add_job_parameters(shape, job.payload)
        else:
            statement, parameters = gathered([(shape, job.payload)], tell=False, by_functions=False, patience=None)
        rows = decode_jobs(run(statement, parameters))
        if not rows:  # another engine's function may lose a race for a key; it then returns no row
            continue
        row, status = rows[0], status_of(rows[0], shape.mode)
        revision = row.revision
        if status in (EnqueueStatus.ADDED, EnqueueStatus.REPLACED):
            _named(row, shape)
        elif known := decode_jobs(run("get_job", (str(row.id),))):
            row = known[0]  # an older job, perhaps of another task
        return EnqueueOutcome(status, row.id, row, revision, job.source)
    raise BackfillError(f"task {shape.task!r}, job_key {shape.key!r}: add_job gave no row, {_TRIES} times")


def _named(row: Job, shape: JobShape) -> Job:
    row.task_identifier, row.queue_name = shape.task, shape.queue
    return row
