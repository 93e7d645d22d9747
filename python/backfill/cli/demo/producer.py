"""The demo as a producer: a backlog in bulk, and then a paced stream of single jobs."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator

from backfill.cli.demo.board import Board
from backfill.cli.demo.tasks import Work, work
from backfill.client import BackfillClient
from backfill.jobs import JobSpec, NewJob, Priority

FAILS_IN_BACKLOG = 1_000
"""One of this many jobs fails in its first attempt."""
FAILS_IN_STREAM = 50
_TELL_EVERY = 1_000


async def fill(client: BackfillClient, board: Board, *, jobs: int, each: int) -> None:
    """Enqueue the backlog in two calls: first many jobs of one priority, then some of each of the six priorities."""
    begun = time.monotonic()
    await client.enqueue_bulk(_counted(_backlog(jobs, [Priority.BULK_DEFAULT]), board))
    await client.enqueue_bulk(_counted(_backlog(each * len(Priority), list(Priority)), board))
    board.enqueue_seconds = time.monotonic() - begun


async def stream(client: BackfillClient, board: Board, *, rate: float, until: asyncio.Event) -> None:
    """Enqueue single jobs at a steady rate, the six priorities in turn, until the event is set.

    If the database cannot keep up with the rate, the stream is slower too; it never catches up in bursts.
    """
    pause = 1 / rate
    due = time.monotonic()
    for number, priority in enumerate(itertools.cycle(Priority)):
        await client.enqueue(work.job(Work("stream", number % FAILS_IN_STREAM == 0)), priority=priority)
        board.streamed += 1
        due = max(due + pause, time.monotonic() - pause)
        try:
            await asyncio.wait_for(until.wait(), max(due - time.monotonic(), 0.0))
        except TimeoutError:
            continue
        return


def _backlog(count: int, priorities: list[Priority]) -> Iterator[NewJob[None]]:
    specs = [JobSpec(priority=priority) for priority in priorities]
    for number in range(count):
        fails = number % FAILS_IN_BACKLOG == FAILS_IN_BACKLOG - 1
        yield work.job(Work("backlog", fails), specs[number % len(specs)])


def _counted(jobs: Iterator[NewJob[None]], board: Board) -> Iterator[NewJob[None]]:
    """Yield the same jobs, and count on the board how many of them were taken."""
    for number, job in enumerate(jobs, start=1):
        yield job
        if number % _TELL_EVERY == 0:
            board.enqueued += _TELL_EVERY
