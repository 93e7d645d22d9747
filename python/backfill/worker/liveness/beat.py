"""The heartbeat: keeps a worker's row in `backfill_workers` fresh, from the worker's start to its end.

The row is written at the start, again every few seconds, and deleted at the end. A thread with a connection of its own
writes the heartbeats, so that a handler that holds the event loop does not cost the worker its jobs. The loop tells the
thread that it turns, and takes in what the thread reports.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import psycopg

from backfill._native import HeartbeatReport
from backfill.errors import DatabaseConnectionError
from backfill.said import said, without_details
from backfill.storage.backoff import Backoff
from backfill.storage.connection import Connection, complete, connect, resolve
from backfill.storage.heartbeat.choice import Heartbeat, make_heartbeat
from backfill.storage.isolation import is_read_committed
from backfill.storage.pooler import is_pooled
from backfill.storage.statements import render
from backfill.storage.until import end_all, in_own_thread
from backfill.storage.workers import WorkerRow, add_worker, remove_worker
from backfill.worker.config import WorkerConfig
from backfill.worker.liveness.health import Pulse
from backfill.worker.service import Service, finish, wait_for_event

logger = logging.getLogger(__name__)

TIMEOUT: Final = 10.0
"""Seconds that connecting or a heartbeat may take; the thread has only half of `dead_after` where that is less."""
TURN_SECONDS: Final = 0.5
"""How often the loop says that it turns, in seconds, and so how exact the loop's lag is known."""
YOUNG_BEATS: Final = 6
"""In how many of its first turns a worker beats, beside the usual beats: the workers of a fleet mostly start together,
and each beat says how many there are."""
FRESH_SECONDS: Final = 45.0
"""How old, in seconds, a connection string from a callable may get: the thread itself never calls the callable."""
_ASK_AGAIN_SECONDS: Final = 1.0
_STOP_SECONDS: Final = 5.0


class Beat(Service):
    """Keeps the worker's row alive.

    Args:
        config: the worker's settings: its database, schema and times.
        row: the worker's row, which other workers see.
        pulse: told that the loop turns.

    Attributes:
        fleet: how many live workers know a task that this worker knows, this worker included.
        version: the version of the newest message that operators sent to the fleet, as of the last heartbeat.
        told: called when a heartbeat's answer shows that operators have said something new.
        lost: called once, when this worker was given up by another.
        regained: called when a heartbeat got through after the lease was over.
    """

    def __init__(self, config: WorkerConfig, row: WorkerRow, pulse: Pulse) -> None:
        super().__init__("beat")
        self._config = config
        self._row = row
        self._pulse = pulse
        self._name = f"backfill {row.id} beat"
        self._timeout = min(TIMEOUT, config.dead_after.total_seconds() / 2)
        self._dead_after = config.dead_after.total_seconds()
        self._conninfo = ""
        self._setup: list[str] = []
        self._begin: str | None = None
        self._news = asyncio.Event()
        self._refused = asyncio.Event()
        self._backoff = Backoff()
        self._written = False
        self.fleet = 1
        self.version = 0
        self.lost: Callable[[], None] = lambda: None
        self.regained: Callable[[], None] = lambda: None
        self.told: Callable[[], None] = lambda: None
        self._said = ""
        self._leased_until = math.inf
        self._heartbeat: Heartbeat | None = None

    async def first(self) -> None:
        """Write the row before the first claim.

        Raises:
            DatabaseConnectionError: the server cannot be reached.
            psycopg.Error: the server refused.
        """
        async with asyncio.timeout(TIMEOUT):
            self._conninfo = await self._fresh()
            connection = await self._connect()
            if not is_pooled(connection):  # through a pooler it would change a session that others use
                self._setup = [render("set_beat")]
            elif not is_read_committed(connection):
                self._begin = render("begin_read_committed")
            self._written = True  # set before, since the row may be written although the answer is lost
            try:
                self._leased_until = time.monotonic() + self._dead_after
                self.fleet, self._said = await add_worker(connection, self._row, schema=self._config.schema)
            finally:
                await connection.close()

    def leased_until(self) -> float:
        """The time, in monotonic seconds, until which no other worker can have given this one up.

        It follows from the last heartbeat that got through.
        """
        if self._heartbeat is not None:
            self._hear_of_lease(self._heartbeat.report())
        return self._leased_until

    async def remove(self) -> None:
        """Delete the row, if there is one, since the worker ended in good order.

        The row stays while the worker still has jobs locked.
        """
        if not self._written:
            return
        try:
            async with asyncio.timeout(TIMEOUT):
                connection = await self._connect()
                try:
                    await remove_worker(connection, self._row.id, schema=self._config.schema)
                finally:
                    await connection.close()
        except (DatabaseConnectionError, psycopg.Error, TimeoutError, OSError) as error:
            logger.warning("the worker's row could not be deleted: %s", said(error))
        except Exception as error:  # noqa: BLE001 - the user's function may raise anything, also secrets
            logger.warning("the worker's row could not be deleted, there is no dsn: %s", type(error).__name__)

    async def _run(self) -> None:
        config = self._config
        heartbeat = make_heartbeat(
            self._conninfo, self._setup, render("beat", config.schema), [self._row.id],
            interval=config.heartbeat_interval.total_seconds(), timeout=self._timeout,
            stuck_after=None if config.stuck_after is None else config.stuck_after.total_seconds(), begin=self._begin,
        )  # fmt: skip
        self._heartbeat = heartbeat
        asking = None if isinstance(config.required_dsn(), str) else asyncio.ensure_future(self._ask(heartbeat))
        try:
            with self._hearing(heartbeat):
                heartbeat.start()
                await self._until_stopped(self._turn(heartbeat))
        finally:
            self._heartbeat = None
            try:
                if asking is not None:
                    await end_all(asking)
            finally:  # also where this task is cancelled twice, else the thread would go on
                await finish(lambda: _end(heartbeat))

    async def _turn(self, heartbeat: Heartbeat) -> None:
        """Tell the thread that the loop turns, and take in its reports, until this worker is given up."""
        early = [time.monotonic() + TURN_SECONDS * number for number in range(YOUNG_BEATS, 0, -1)]
        while True:
            heartbeat.alive()
            self._pulse.turned = now = time.monotonic()
            if early and now >= early[-1]:
                early.pop()
                heartbeat.beat_now()
            await wait_for_event(self._news, TURN_SECONDS)
            self._news.clear()
            report = heartbeat.report()
            self._hear(report)
            if report.missing:
                self.lost()
                return

    def _hear_of_lease(self, report: HeartbeatReport) -> None:
        if report.last_success is None or report.missing:
            return
        now = time.monotonic()
        before, self._leased_until = self._leased_until, now - report.last_success + self._dead_after
        if before < now <= self._leased_until:
            self.regained()

    def _hear(self, report: HeartbeatReport) -> None:
        self._hear_of_lease(report)
        if report.failure is None:
            if self._backoff.reset():
                logger.info("the heartbeat gets through again")
        else:
            logger.log(self._backoff.level(), "a heartbeat failed: %s", without_details(report.failure))
        if report.wants_conninfo:
            self._refused.set()
        if report.answer is not None:
            self.version, self.fleet = int(report.answer[0] or 0), int(report.answer[1] or 1)
            if (said_now := report.answer[3] or "") != self._said:
                self._said = said_now
                self.told()

    @contextmanager
    def _hearing(self, heartbeat: Heartbeat) -> Iterator[None]:
        """Wake when the thread has news; where the loop cannot watch its descriptor, each turn asks for them."""
        loop, descriptor = asyncio.get_running_loop(), heartbeat.fileno()
        with contextlib.suppress(NotImplementedError):
            loop.add_reader(descriptor, self._news_came, heartbeat)
        try:
            yield
        finally:
            with contextlib.suppress(NotImplementedError):
                loop.remove_reader(descriptor)

    def _news_came(self, heartbeat: Heartbeat) -> None:
        # The descriptor stays readable until a report is asked for; `_turn` asks again and takes it in.
        heartbeat.report()
        self._news.set()

    async def _ask(self, heartbeat: Heartbeat) -> None:
        """Hand the thread a fresh connection string, now and then and when the server refused the old one."""
        backoff = Backoff()
        while True:
            asked = time.monotonic()
            await wait_for_event(self._refused, FRESH_SECONDS)
            self._refused.clear()
            try:
                async with asyncio.timeout(TIMEOUT):
                    heartbeat.set_conninfo(await self._fresh())
                backoff.reset()
            except Exception as error:  # noqa: BLE001 - the user's function may raise anything; asked again
                logger.log(backoff.level(), "the heartbeat has no fresh dsn: %s", type(error).__name__)
            await asyncio.sleep(max(asked + _ASK_AGAIN_SECONDS - time.monotonic(), 0))

    async def _fresh(self) -> str:
        return complete(await resolve(self._config.required_dsn()), application_name=self._name)

    async def _connect(self) -> Connection:
        return await connect(self._config.required_dsn(), application_name=self._name)


async def _end(heartbeat: Heartbeat) -> None:
    """End the thread; a helper thread waits for that, since it takes a moment."""
    await in_own_thread(lambda: heartbeat.stop(_STOP_SECONDS), timeout=2 * _STOP_SECONDS)
