"""One look of a scheduler: read the time and what stands, and enqueue the runs that are due.

Any number of schedulers look at the same time, and none of them leads. A run is enqueued by whoever advances the item's
last run first, in the same statement, so that it is enqueued once. A scheduler that comes too late finds the run done.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final, TypeVar

import psycopg

from backfill.client.schedule_table import ScheduleTable
from backfill.cron.due import MOST_COUNTED, Dropped, Due, Known
from backfill.cron.schedule import Schedule
from backfill.cron.standing import InForce
from backfill.cron.text import parse_crontab
from backfill.errors import BackfillError, InvalidJobError
from backfill.hooks.events import CronJobScheduled, CronTick, ObservedEvent
from backfill.said import why
from backfill.storage.backoff import Backoff
from backfill.storage.schedules import KnownSchedule, Look, NewRun, RunDone, RunOutcome
from backfill.worker.scheduling.fleet import Fleet
from backfill.worker.scheduling.jobs import ANSWER_SECONDS, JobMaker
from backfill.worker.scheduling.plan import Plan, Planned

logger = logging.getLogger(__name__)

LOOK_SECONDS: Final = 30.0
"""A scheduler looks at least this often, so that it sees a jump of the clock and what nobody told it of."""
SPREAD_SECONDS: Final = 0.05
"""A look comes up to this much later than a run, so that of many schedulers most find it done already."""
SOON_SECONDS: Final = 0.1
"""How soon it looks again at an item that somebody else was doing something with."""
TROUBLE_SECONDS: Final = 5.0
"""How soon it looks again if the jobs of some items could not be made or added; the other items are not held up."""
AWAIT_SECONDS: Final = 15.0
"""How long a scheduler that was just started leaves items to one that may have been cut off, and knows more of them."""
STATEMENT_SECONDS: Final = 30.0
LONGEST_BUSY_SECONDS: Final = 2.0
"""How soon it looks again at an item that somebody else holds for long, such as an operator's open transaction."""
MOST_AT_ONCE: Final = 1_000
"""How many runs one statement gets."""
MOST_BYTES: Final = 4_000_000
"""How long all payloads of one statement may be, unless one alone is longer."""
ASKED_AT_ONCE: Final = 20
"""Of how many items the plugins are asked at the same time; those of a slow answer do not hold up the others."""
_MANY: Final = 100
_DONE: Final = (RunOutcome.ADDED, RunOutcome.OVERLAPPED, RunOutcome.REFUSED, RunOutcome.TAKEN)
_REFUSALS: Final = (
    psycopg.DataError,
    psycopg.IntegrityError,
    psycopg.ProgrammingError,
    psycopg.NotSupportedError,
    psycopg.errors.ProgramLimitExceeded,
    psycopg.errors.StatementTooComplex,
    InvalidJobError,
)
"""What says that a job cannot be added, however often it is tried; the item's text, or a plugin's payload, is wrong."""
_TOO_LONG: Final = (TimeoutError, psycopg.errors.QueryCanceled)
T = TypeVar("T")
_Made = tuple[Planned, Due, list[NewRun]]


class Scheduler:
    """Enqueues the runs of recurring items that are due.

    Args:
        table: reads and writes the database.
        maker: makes the jobs of runs.
        worker: returns this worker's id.
        schedules: the items that this worker's own code declares.
        tell: tells observers of an event.
        clock: seconds that go on steadily, whatever happens to the machine's time.
    """

    def __init__(
        self,
        table: ScheduleTable,
        maker: JobMaker,
        *,
        worker: Callable[[], str],
        schedules: Iterable[Schedule],
        tell: Callable[[ObservedEvent], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._table = table
        self._maker = maker
        self._worker = worker
        self._tell = tell
        self._clock = clock
        self._own = {str(schedule): schedule for schedule in schedules}
        self._read = dict(self._own)
        self._unreadable = set[tuple[str, str]]()
        self._fleet = Fleet(table, {schedule.identifier: line for line, schedule in self._own.items()})
        self._plan = Plan()
        self._outage = Backoff()
        self._busy = Backoff(SOON_SECONDS, LONGEST_BUSY_SECONDS)
        self._most = MOST_AT_ONCE
        self._patient_until: float | None = None

    async def look(self) -> float:
        """Enqueue the runs that are due now, and return in how many seconds to look again.

        Raises:
            DatabaseConnectionError: the server cannot be reached.
            psycopg.Error: the server refused.
            TimeoutError: the server did not answer in time.
        """
        began = self._clock()
        look = await _in_time(self._table.read_schedules())
        items = await _in_time(self._fleet.follow(look, self._worker()))
        if items is not None:
            self._plan.follow(items, self._read_item)
            self._forget_lines(items)
        patience = self._patience(look, began)
        troubles = list[str]()
        again = await self._enqueue(self._plan.due(look.clock), look.clock, troubles, is_patient=patience > 0)
        self._most = min(self._most * 2, MOST_AT_ONCE)
        if troubles:
            logger.log(self._outage.level(), "some recurring jobs could not be scheduled, and will be: %s", troubles)
        elif self._outage.reset():
            logger.info("all recurring jobs are scheduled again")
        next_at, longest = self._plan.next_at(look.clock), TROUBLE_SECONDS if troubles else LOOK_SECONDS
        if patience > 0:
            longest = min(longest, patience)
        if again:
            longest = min(longest, self._busy.pause())
        else:
            self._busy.reset()
        if next_at is None:
            return longest
        wait = (next_at - look.clock).total_seconds() - (self._clock() - began)
        return min(max(wait, 0.0) + random.uniform(0, SPREAD_SECONDS), longest)  # noqa: S311

    def _patience(self, look: Look, began: float) -> float:
        """For how many seconds to leave items to others at which this scheduler has never looked.

        After an outage of the database, workers that were there before it know which runs fell into it: they were there
        when these were due. One that was started meanwhile does not. If it came first, and added a later run, the
        others would find the runs of the outage done. So it waits until the others had the time to come back, unless
        one that was there before it lives: that one does not need them.

        Args:
            look: what was just read.
            began: the steady time at which this look began.
        """
        if self._patient_until is None:
            self._patient_until = began + AWAIT_SECONDS if look.is_awaited else began
        return self._patient_until - began

    async def _enqueue(
        self, planned: Sequence[Planned], now: datetime, troubles: list[str], *, is_patient: bool
    ) -> bool:
        """Enqueue the runs of these items that are due, and return whether to look again soon.

        Args:
            planned: the items.
            now: the database's time.
            troubles: gets a text for each item whose jobs could not be made or added; the next look tries them again.
            is_patient: whether to leave items to others at which this scheduler has never looked.
        """
        if not planned:
            return False
        due = await self._due(planned, now, is_patient=is_patient)
        if not due:
            return False
        self._tell(CronTick(now, tuple(one.schedule for one, _ in due), self._worker()))
        again = False
        async for made in self._made(due, now, troubles):
            batch = list[_Made]()
            for number, one in enumerate(made, 1):
                batch.append(one)
                if number == len(made) or sum(len(runs) for *_, runs in batch) >= self._most:
                    again |= await self._add(batch, now, troubles)
                    batch = []
        return again

    async def _made(
        self, due: Sequence[tuple[Planned, Due]], now: datetime, troubles: list[str]
    ) -> AsyncIterator[list[_Made]]:
        """Make the jobs of items, and give them as they are there, so that slow plugins hold up few."""
        left, made, since = deque(due), list[_Made](), self._clock()
        making = dict[asyncio.Task[list[NewRun]], tuple[Planned, Due]]()
        most = ASKED_AT_ONCE if self._maker.asks else len(due)
        try:
            while left or making:
                while left and len(making) < most and sum(len(found.runs) for _, found in making.values()) < _MANY:
                    one, found = left.popleft()
                    making[asyncio.create_task(self._make(one, found, now))] = one, found
                limit = SOON_SECONDS if made else None
                ended, _ = await asyncio.wait(making, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
                for task in [task for task in making if task.done()]:
                    one, found = making.pop(task)
                    error = task.exception()
                    if error is None:
                        made.append((one, found, task.result()))
                    elif isinstance(error, Exception):  # a plugin may raise anything, and other items must go on
                        identifier = one.item.identifier
                        troubles.append(f"the job of {identifier!r} could not be made: {type(error).__qualname__}")
                        logger.debug("the job of %r could not be made", identifier, exc_info=error)
                    else:
                        raise error
                full = sum(len(runs) for *_, runs in made) >= self._most
                late = not ended or self._clock() - since > SOON_SECONDS
                if made and (full or late or not (left or making)):
                    yield made
                    made, since = [], self._clock()
        finally:
            for task in making:
                task.cancel()
            await asyncio.gather(*making, return_exceptions=True)

    async def _make(self, one: Planned, found: Due, now: datetime) -> list[NewRun]:
        """The jobs of an item's runs, or of the first of them where plugins take long for each."""
        until = self._clock() + ANSWER_SECONDS
        runs = list[NewRun]()
        for run in found.runs:
            runs.append(await self._maker.make(one.schedule, run, one.item.revision, now))
            if self._clock() > until:
                break
        return runs

    async def _due(self, planned: Sequence[Planned], now: datetime, *, is_patient: bool) -> list[tuple[Planned, Due]]:
        """Those of the items that have runs due, with these; the others are covered, unless they are left to others."""
        known = await self._known(planned, now)
        due = list[tuple[Planned, Due]]()
        for one in planned:
            if is_patient and one.covered is None:
                continue
            found = one.due(known[one.item.identifier], now) if one.item.identifier in known else Due()
            if found.runs:
                due.append((one, found))
            else:
                one.cover(now)
            if len(found.runs) > _MANY:
                await asyncio.sleep(0)  # to find many runs takes milliseconds, and there may be a thousand such items
        return due

    async def _known(self, planned: Sequence[Planned], now: datetime) -> dict[str, Known]:
        """What the database remembers of these items; those that are unknown are registered."""
        identifiers = [one.item.identifier for one in planned]
        rows = await _in_time(self._table.find_known_schedules(identifiers))
        if missing := [identifier for identifier in identifiers if identifier not in rows]:
            rows = {**rows, **await _in_time(self._table.register_schedules(missing, now))}
        return {identifier: _known_of(row) for identifier, row in rows.items()}

    async def _add(self, batch: Sequence[_Made], now: datetime, troubles: list[str]) -> bool:
        """Add the jobs of some items, and return whether to look again soon.

        If the server refuses the jobs, since it refuses one of them, such as for its payload, each half of them is
        added by itself, so that one item does not keep all others from being scheduled.
        """
        try:
            done = await self._add_in_parts([run for *_, runs in batch for run in runs])
        except _REFUSALS as error:
            if isinstance(error, psycopg.errors.InsufficientPrivilege):
                raise
            if len(batch) == 1:
                identifier = batch[0][0].item.identifier
                troubles.append(f"the job of {identifier!r} was refused: {why(error)}")
                return False
            half = len(batch) // 2
            first = await self._add(batch[:half], now, troubles)
            return await self._add(batch[half:], now, troubles) or first
        outcomes = dict[str, list[RunDone]]()
        for one in done:
            outcomes.setdefault(one.identifier, []).append(one)
        again = False
        for planned, found, runs in batch:
            not_all = self._end(planned, found, outcomes.get(planned.item.identifier, []), now, of=len(runs))
            again |= not_all
        return again

    async def _add_in_parts(self, runs: Sequence[NewRun]) -> list[RunDone]:
        """Add the jobs of runs by statements that are neither too large nor take too long.

        If one takes too long, all are shorter from the next look on, until a whole look succeeds. The runs of an item
        after one that was not done are left out, since a later run that is done makes all earlier ones done.
        """
        done, left_out, start = list[RunDone](), set[str](), 0
        while start < len(runs):
            end, size = start + 1, len(runs[start].payload)
            while end < len(runs) and end - start < self._most and size + len(runs[end].payload) <= MOST_BYTES:
                size += len(runs[end].payload)
                end += 1
            part, start = [run for run in runs[start:end] if run.identifier not in left_out], end
            if not part:
                continue
            try:
                found = await _in_time(self._table.add_runs(part))
            except _TOO_LONG:
                self._most = max(1, len(part) // 2)
                raise
            done += found
            left_out |= {one.identifier for one in found if one.outcome not in _DONE}
        return done

    def _end(self, planned: Planned, found: Due, done: Sequence[RunDone], now: datetime, *, of: int) -> bool:
        """Take note of what became of an item's runs, and return whether to look at it again soon.

        Args:
            planned: the item.
            found: its runs that are due.
            done: what became of those of them that were given to the statements.
            now: the database's time.
            of: how many runs there are jobs for; less than are due where plugins took long for each.
        """
        identifier = planned.item.identifier
        backfilled = {run.at for run in found.runs if run.backfilled}
        for run in done:
            if run.outcome is RunOutcome.ADDED and run.job_id is not None and run.run not in backfilled:
                self._tell(CronJobScheduled(planned.schedule, run.run, run.job_id, self._worker()))
            elif run.outcome is RunOutcome.OVERLAPPED:
                logger.info(
                    "recurring job %r: its run at %s is left out, since the job of an earlier run waits or runs",
                    identifier, run.run, extra={"schedule": identifier},
                )  # fmt: skip
        if any(run.outcome is RunOutcome.STALE for run in done):
            self._fleet.doubt()
        if not all(run.outcome in _DONE for run in done):
            return True
        if found.dropped is not None and any(run.outcome is RunOutcome.ADDED for run in done):
            _warn_of_dropped(identifier, found.dropped, len(found.runs))
        if of < len(found.runs):
            return True
        planned.cover(now)
        return False

    def _forget_lines(self, items: Mapping[str, InForce]) -> None:
        """Keep the schedules that were read from lines only while these lines are in force."""
        lines = {item.line for item in items.values()}
        self._read = self._own | {line: schedule for line, schedule in self._read.items() if line in lines}

    def _read_item(self, item: InForce) -> Schedule | None:
        """Read the line of an item; None for one that this version cannot read, of which it warns once."""
        schedule = self._read.get(item.line)
        if schedule is not None and schedule.identifier == item.identifier:
            return schedule
        try:
            (schedule,) = parse_crontab(item.line)
        except (BackfillError, ValueError) as error:
            self._warn_unreadable(item, type(error).__qualname__)
            return None
        if schedule.identifier != item.identifier:
            self._warn_unreadable(item, f"its line has another identifier, {schedule.identifier!r}")
            return None
        self._read[item.line] = schedule
        return schedule

    def _warn_unreadable(self, item: InForce, reason: str) -> None:
        if (item.identifier, item.line) not in self._unreadable:
            self._unreadable.add((item.identifier, item.line))
            logger.warning(
                "recurring job %r cannot be read by this worker, which leaves it to others: %s",
                item.identifier, reason, extra={"schedule": item.identifier},
            )  # fmt: skip


async def _in_time(work: Awaitable[T]) -> T:
    async with asyncio.timeout(STATEMENT_SECONDS):
        return await work


def _known_of(row: KnownSchedule) -> Known:
    return Known(row.known_since, row.last_execution)


def _warn_of_dropped(identifier: str, dropped: Dropped, kept: int) -> None:
    more = " or more" if dropped.count == MOST_COUNTED else ""
    logger.warning(
        "recurring job %r: %d%s runs from %s until before %s were missed and are left out, since only the last %d are "
        "made up for",
        identifier, dropped.count, more, dropped.first, dropped.before, kept, extra={"schedule": identifier},
    )  # fmt: skip
