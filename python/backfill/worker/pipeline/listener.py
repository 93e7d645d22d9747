"""The listener: hears of new jobs, of migrations and of what operators say, on a connection of its own in autocommit.

Any role that may connect can send such notifications, with any text, so none is believed. A notification of jobs makes
the worker look for jobs, within a limited rate. One of control makes it look at what operators say. A notification of a
migration makes it read the ledgers, and those decide. A lost notification does no harm, since the claimer polls; and
when the listener has connected again, it wakes the claimer, since it may have missed some.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

import orjson
import psycopg

from backfill.errors import SchemaVersionError
from backfill.storage.backoff import Backoff
from backfill.storage.connection import Connection, Dsn, connect, shown
from backfill.storage.pooler import ANSWER_SECONDS, is_pooled
from backfill.storage.ration import Ration
from backfill.storage.schema.functions import look_at_functions
from backfill.storage.schema.state import read_state, refuse_newer
from backfill.storage.workers import listen
from backfill.worker.service import Service

logger = logging.getLogger(__name__)

JOBS_CHANNEL: Final = "jobs:insert"
MIGRATION_CHANNEL: Final = "worker:migrate"
CONTROL_CHANNEL: Final = "backfill:control"
LOOKS_AT_ONCE: Final = 100
LOOKS_PER_SECOND: Final = 200.0
"""How often notifications may make the worker look for jobs; each job that it has claimed allows one more look."""
LEDGERS_PER_SECOND: Final = 0.2
"""How often notifications may make the worker read the ledgers of migrations, after the first time."""


class Listener(Service):
    """Listens for the contract's notifications.

    Args:
        dsn: the DSN of the database, which must not lead through a pooler.
        schema: the queue's schema.
        worker: the worker's id, for the connection's name.
        wake: called when there may be jobs, nobody knows how many.
        hear: called with how many jobs another process has added.
        claimed: returns how many jobs this worker has claimed.
        control: called when operators may have said something to the fleet.
        reconnected: called when it hears again after it has lost a connection.
    """

    def __init__(
        self,
        dsn: Dsn,
        *,
        schema: str,
        worker: str,
        wake: Callable[[], None],
        hear: Callable[[int], None],
        claimed: Callable[[], int],
        control: Callable[[], None] = lambda: None,
        reconnected: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__("listener")
        self._dsn = dsn
        self._schema = schema
        self._worker = worker
        self._wake = wake
        self._hear_jobs = hear
        self._control = control
        self._reconnected = reconnected
        self._claimed = claimed
        self._looks = Ration(LOOKS_AT_ONCE, LOOKS_PER_SECOND)
        self._earned = 0
        self._count: int | None = 0
        self._later: asyncio.TimerHandle | None = None
        self._ledgers = Ration(1, LEDGERS_PER_SECOND)
        self._migrated = False

    async def _run(self) -> None:
        try:
            await self._until_stopped(self._listen_for_ever())
        finally:
            if self._later is not None:
                self._later.cancel()

    async def _listen_for_ever(self) -> None:
        backoff, has_heard = Backoff(), False
        while True:
            try:
                connection = await connect(self._dsn, application_name=f"backfill {self._worker} listen")
                async with connection:
                    if is_pooled(connection):
                        break
                    async with asyncio.timeout(ANSWER_SECONDS):
                        await listen(connection, (CONTROL_CHANNEL, JOBS_CHANNEL, MIGRATION_CHANNEL))
                    if backoff.reset():
                        logger.info("the listener hears again")
                    if has_heard:
                        self._reconnected()
                    has_heard = True
                    # What was said before it listened was said to nobody here.
                    self._control()
                    self._wake()
                    await self._read_ledgers(connection)
                    await self._hear_all(connection)
            except SchemaVersionError:
                raise
            except Exception as error:  # noqa: BLE001 - a dsn's function may raise whatever it likes; it is asked again
                logger.log(
                    backoff.level(), "the listener lost the database; jobs are found by polling: %s", shown(error)
                )
            if await backoff.wait(self._stopping):
                return
        logger.warning(
            "no notification comes through a pooler: jobs are found by polling. listen_dsn= (--listen-dsn) takes a DSN "
            "that goes round it, listen=False (--no-listen) polls without this warning"
        )
        await self._stopping.wait()

    async def _hear_all(self, connection: Connection) -> None:
        """Take in notifications until the connection is lost or the service is asked to stop."""
        while not self._stopping.is_set():
            wait = self._ledgers.wait() if self._migrated else None
            if wait == 0:
                self._ledgers.take()
                self._migrated = False
                await self._read_ledgers(connection)
                self._wake()  # for jobs that were added meanwhile, whose notifications may not be heard
                continue
            async for notification in connection.notifies(timeout=wait, stop_after=1):
                self._hear(notification)

    def _hear(self, notification: psycopg.Notify) -> None:
        if notification.channel == MIGRATION_CHANNEL:
            self._migrated = True
            return
        if notification.channel == CONTROL_CHANNEL:
            self._control()  # whoever is called limits the rate
            return
        try:
            said = orjson.loads(notification.payload)
        except orjson.JSONDecodeError:
            said = None
        count = said.get("count") if isinstance(said, dict) else None
        if not isinstance(count, int):
            self._tell(None)  # the payload cannot be read, but to look costs little
        elif count > 0:
            self._tell(count)

    def _tell(self, count: int | None) -> None:
        """Have `count` jobs looked for (None: any number), at once or, with those told until then, a little later."""
        self._count = None if count is None or self._count is None else self._count + count
        if self._later is not None:
            return
        claimed = self._claimed()
        self._looks.earn(max(claimed - self._earned, 0))
        self._earned = claimed
        wait = self._looks.wait()
        if wait > 0:
            self._later = asyncio.get_running_loop().call_later(wait, self._look)
        else:
            self._look()

    def _look(self) -> None:
        count, self._count, self._later = self._count, 0, None
        self._looks.take()
        if count is None:
            self._wake()
        else:
            self._hear_jobs(count)

    async def _read_ledgers(self, connection: Connection) -> None:
        """Read the ledgers of migrations, to see whether this version can go on with the schema.

        Raises:
            SchemaVersionError: this version cannot work with the schema.
        """
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                refuse_newer(await read_state(connection, self._schema), self._schema)
                await look_at_functions(connection, self._schema)  # perhaps the migration has replaced them
        except psycopg.Error as error:
            if connection.closed:
                raise
            logger.warning("the ledgers of migrations cannot be read: %s", shown(error))
