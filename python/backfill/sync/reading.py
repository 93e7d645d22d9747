"""Reads the items of a synchronous bulk call, and asks interceptors about jobs.

Interceptors are coroutine functions: for each job they run in an event loop of their own.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterable
from typing import Any

from backfill.client.bulk.intercepted import InterceptedReader
from backfill.client.bulk.items import Encoder, Reader
from backfill.client.prepare import JobShape
from backfill.client.scheduling import Scheduling, Settled
from backfill.errors import InvalidPayloadError, JobScheduleRefusedError
from backfill.jobs import NewJob
from backfill.sync.base import in_a_loop


class AskedInLoop(Scheduling):
    """The interceptors of a client, which are asked in an event loop of their own.

    Args:
        asked: the interceptors.
    """

    def __init__(self, asked: Scheduling) -> None:
        self._asked = asked

    async def ask(
        self, job: NewJob[Any], settled: Settled, schedule: str | None = None
    ) -> tuple[JobShape, bytes] | JobScheduleRefusedError:
        """Ask one interceptor after the other about a job."""
        return in_a_loop(lambda: self._asked.ask(job, settled, schedule))


class _Plain:
    """What readers of both kinds are on top of, in a synchronous call."""

    @property
    def yields(self) -> bool:
        """Whether the caller's code may make other calls between two items: any iterable can."""
        return True


class SyncReader(_Plain, Reader):
    """Reads the items of one call."""

    def __init__(self, items: Any, encoder: Encoder) -> None:
        super().__init__(items, encoder)
        self._turn = math.inf  # there is no event loop that could have its turn


class SyncInterceptedReader(_Plain, InterceptedReader):
    """Reads the items of one call, and asks interceptors about each of them."""

    def __init__(self, items: Any, encoder: Encoder, scheduling: Scheduling, skipped: list[int] | None) -> None:
        super().__init__(items, encoder, scheduling, skipped)
        self._turn = math.inf


def reader_of(items: Any, encoder: Encoder, scheduling: Scheduling | None, skipped: list[int] | None) -> Reader:
    """Make what reads the items of one call.

    Raises:
        InvalidPayloadError: the items are those of an asynchronous iterable.
    """
    if isinstance(items, AsyncIterable):
        raise InvalidPayloadError(
            "jobs", items, "an iterable; an asynchronous one is for BackfillClient, the asynchronous client"
        )
    if scheduling is None:
        return SyncReader(items, encoder)
    return SyncInterceptedReader(items, encoder, scheduling, skipped)
