"""What a fleet is asked for.

Plain, serial and keyed jobs, a tenth of which fail by design, at once or at a steady rate.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import random
from collections.abc import Awaitable, Iterator, Sequence
from typing import Any

import psycopg

from backfill import BackfillClient, EnqueueOutcome, EnqueueStatus, JobSpec, NewJob, Queue
from backfill.errors import BackfillError
from fleet.books import Ask, Books

from plugins.periods import let_pass_until

QUEUES = 100
KEYS = 40
BULK = 20


class Orders:
    """Draws jobs and enqueues them, noting in the books what was asked for and what was acknowledged.

    Args:
        books: in which they are noted.
        seed: of all that is drawn; the same seed gives the same jobs in the same order.
        longest: of a job's work, in seconds.
        names: of the tasks, each of which gets as many jobs as any other.
        queues: how many serial queues there are.
        keys: how many keys there are.
        tries: how often a job is run that fails always.
    """

    def __init__(
        self,
        books: Books,
        *,
        seed: int,
        longest: float,
        names: Sequence[str] = ("work",),
        queues: int = QUEUES,
        keys: int = KEYS,
        tries: int = 3,
    ) -> None:
        self._books = books
        self._chance = random.Random(f"orders {seed}")
        self._longest = longest
        self._names = names
        self._queues = queues
        self._keys = keys
        self._tries = tries
        self._number = 0

    def jobs(self, count: int, *, serial: float = 0.3) -> Iterator[NewJob[object]]:
        """So many jobs without keys, of which a share is serial."""
        for _ in range(count):
            queue = f"q{self._chance.randrange(self._queues)}" if self._chance.random() < serial else None
            yield self._job(queue=queue)

    async def at_once(self, client: BackfillClient, count: int) -> None:
        """Enqueue so many jobs in one call."""
        jobs = list(self.jobs(count))
        asks = [Ask("add", _number(job)) for job in jobs]
        await self._ask(asks, client.enqueue_bulk(jobs))

    async def steadily(self, client: BackfillClient, count: int, *, seconds: float) -> None:
        """Enqueue so many jobs in so many seconds, in single calls and small bulks, a third of the calls with keys.

        Where the database is away it falls behind, and catches up. What fails is not asked for again.
        """
        loop = asyncio.get_running_loop()
        began, first = loop.time(), self._number
        while (done := self._number - first) < count:
            await let_pass_until(began + done * seconds / count)
            draw = self._chance.random()
            if draw < 0.02:
                jobs = list(self.jobs(min(BULK, count - done)))
                await self._ask([Ask("add", _number(job)) for job in jobs], client.enqueue_bulk(jobs))
            elif draw < 0.35:
                await self._keyed(client)
            else:
                [job] = self.jobs(1)
                await self._ask([Ask("add", _number(job))], client.enqueue(job))

    async def _keyed(self, client: BackfillClient) -> None:
        """Add or replace the job of a key, or remove it. One call of a key at a time, so that the last one counts."""
        key = f"k{self._chance.randrange(self._keys)}"
        if self._chance.random() < 0.1:
            await self._ask([Ask("remove", key=key)], client.remove_job(key))
            return
        queue = f"q{self._chance.randrange(self._queues)}" if self._chance.random() < 0.3 else None
        job = self._job(queue=queue, key=key)
        await self._ask([Ask("add", _number(job), key)], client.enqueue(job))

    async def _ask(self, asks: list[Ask], call: Awaitable[Any]) -> None:
        self._books.ask(*asks)
        for ask in asks:
            ask.at = dt.datetime.now(dt.UTC)
        try:
            outcome = await call
        except (BackfillError, psycopg.Error, TimeoutError, OSError):
            return
        for ask in asks:
            ask.acknowledged, ask.returned = True, dt.datetime.now(dt.UTC)
            ask.replaced = isinstance(outcome, EnqueueOutcome) and outcome.status is EnqueueStatus.REPLACED

    def _job(self, *, queue: str | None, key: str | None = None) -> NewJob[object]:
        self._number += 1
        number = self._number
        # A tenth fails: half of it always, until no attempt is left, and half once.
        fails = {5: 99, 15: 1}.get(number % 20, 0)
        payload = {"number": number, "seconds": self._chance.uniform(0.0, self._longest), "fails": fails}
        spec = JobSpec(
            queue=Queue.serial(queue) if queue else Queue.parallel(),
            job_key=key,
            max_attempts=self._tries if fails == 99 else 25,
        )
        # Numbers that fail alike are spread over all names.
        name = self._names[(number + number // 20) % len(self._names)]
        return NewJob(name, payload, spec)


def _number(job: NewJob[object]) -> int:
    payload = job.payload
    assert isinstance(payload, dict)
    return int(payload["number"])
