"""The listener: a connection of its own, in autocommit, that hears of new jobs and of migrations.

A notification lost is no harm, since the claimer polls; a listener that comes back wakes it, for what it missed.
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
from backfill.storage.connection import Dsn, connect, shown
from backfill.storage.pooler import ANSWER_SECONDS, is_pooled
from backfill.storage.schema import KNOWN_CONTRACT
from backfill.storage.workers import listen
from backfill.worker.service import Service

logger = logging.getLogger(__name__)

JOBS_CHANNEL: Final = "jobs:insert"
MIGRATION_CHANNEL: Final = "worker:migrate"


class Listener(Service):
    """Listens for the contract's notifications.

    Args:
        dsn: of the database, past any pooler.
        worker: the worker's id, for the connection's name.
        wake: called when there may be jobs that nothing was heard of.
        hear: called with how many jobs another process has added.
    """

    def __init__(self, dsn: Dsn, *, worker: str, wake: Callable[[], None], hear: Callable[[int], None]) -> None:
        super().__init__("listener")
        self._dsn = dsn
        self._worker = worker
        self._wake = wake
        self._hear_jobs = hear

    async def _run(self) -> None:
        await self._until_stopped(self._listen_for_ever())

    async def _listen_for_ever(self) -> None:
        backoff = Backoff()
        while True:
            try:
                connection = await connect(self._dsn, application_name=f"backfill {self._worker} listen")
                async with connection:
                    if is_pooled(connection):
                        break
                    async with asyncio.timeout(ANSWER_SECONDS):
                        await listen(connection, (JOBS_CHANNEL, MIGRATION_CHANNEL))
                    if backoff.reset():
                        logger.info("the listener hears again")
                    self._wake()
                    async for notification in connection.notifies():
                        self._hear(notification)
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

    def _hear(self, notification: psycopg.Notify) -> None:
        try:
            said = orjson.loads(notification.payload)
        except orjson.JSONDecodeError:
            said = None
        fields = said if isinstance(said, dict) else {}
        if notification.channel == MIGRATION_CHANNEL:
            self._hear_of_migration(fields)
        elif not isinstance(count := fields.get("count"), int):
            self._wake()  # whatever a sender says that we cannot read: looking costs little
        elif count > 0:
            self._hear_jobs(count)

    def _hear_of_migration(self, fields: dict[str, object]) -> None:
        number = fields.get("migrationNumber")
        if fields.get("breaking") is True and isinstance(number, int) and number > KNOWN_CONTRACT:
            raise SchemaVersionError(
                f"the database has just been migrated to {number}, a breaking migration; this version of backfill knows "
                f"{KNOWN_CONTRACT}: the worker stops, upgrade it"
            )
