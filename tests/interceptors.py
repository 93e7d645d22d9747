"""Tasks, and plugins that are asked before a job is scheduled, for the tests of `BeforeJobSchedule`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from backfill import (
    BeforeJobSchedule,
    ContinueWith,
    Fail,
    HookRegistry,
    JobScheduleResult,
    Queue,
    RetryPolicy,
    Skip,
    TaskRegistry,
)

Answer = JobScheduleResult | None
Callback = Callable[[BeforeJobSchedule], Answer | Awaitable[Answer]]

tasks = TaskRegistry()


@dataclass
class Mail:
    """A payload."""

    to: str


@tasks.task("send", retry=RetryPolicy.fast(), priority=3)
async def send(mail: Mail) -> None:
    """A task with a type of payload, and with settings of its own."""


@tasks.task("lane", queue=lambda mail: Queue.serial_for("to", mail.to))
async def lane(mail: Mail) -> None:
    """A task that chooses the queue by the payload."""


class Asked:
    """A plugin of callbacks of BeforeJobSchedule."""

    def __init__(self, *callbacks: Callback) -> None:
        self.callbacks = callbacks

    def register(self, hooks: HookRegistry) -> None:
        for callback in self.callbacks:
            hooks.on(BeforeJobSchedule, callback)


class Seen(Asked):
    """A plugin that keeps what it is asked."""

    def __init__(self) -> None:
        super().__init__(self.see)
        self.events: list[BeforeJobSchedule] = []

    def see(self, event: BeforeJobSchedule) -> None:
        self.events.append(event)


def one_more(event: BeforeJobSchedule) -> ContinueWith:
    """Add one to a payload."""
    return ContinueWith({"n": event.payload["n"] + 1})


async def doubled(event: BeforeJobSchedule) -> ContinueWith:
    """Double a payload, asynchronously."""
    await asyncio.sleep(0)
    return ContinueWith({"n": event.payload["n"] * 2})


def skip(event: BeforeJobSchedule) -> Skip:
    """Leave a job out."""
    return Skip()


async def over_quota(event: BeforeJobSchedule) -> Fail:
    """Refuse a job, asynchronously."""
    return Fail("over quota")


async def slowly(*items: Any) -> AsyncIterator[Any]:
    """Items, asynchronously."""
    for item in items:
        await asyncio.sleep(0)
        yield item


def other_to(event: BeforeJobSchedule) -> ContinueWith:
    """Send the mail to somebody else."""
    return ContinueWith(Mail("b") if isinstance(event.payload, Mail) else {"to": "b"})
