"""What a handler is given beside its payload."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from backfill.logs import fields_of
from backfill.records import Job

if TYPE_CHECKING:
    from backfill.client import BackfillClient

D = TypeVar("D")


class StopSignal(Protocol):
    """What says whether a handler should end; a `threading.Event` will do."""

    def is_set(self) -> bool:
        """Whether it should."""
        ...

    def wait(self, timeout: float | None = None) -> bool:
        """Wait, in a thread, until it should, at most so many seconds; whether it should."""
        ...


class _JobLogger(logging.LoggerAdapter[logging.Logger]):
    """Adds its fields to a record's; the standard adapter, before Python 3.13, puts them in their place."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Merge what the caller gives, which goes before what the adapter has."""
        kwargs["extra"] = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        return msg, kwargs


class WorkerContext(Generic[D]):
    """A handler's second argument: the job it runs, and what its worker shares. `D` is what the lifespan yields.

    Attributes:
        job: the row, as it was claimed.
        worker_id: of the worker that runs it.
        deps: what the registry's lifespan yielded; None where it has none.
        client: a client on the worker's own pool, to enqueue or read with. It is the worker's: closing it, or leaving
            `async with ctx.client`, closes nothing.
    """

    __slots__ = ("_stop", "_worker_stops", "client", "deps", "job", "worker_id")

    def __init__(
        self,
        *,
        job: Job,
        worker_id: str,
        deps: D,
        client: BackfillClient,
        stop: StopSignal | None = None,
        worker_stops: Callable[[], bool] | None = None,
    ) -> None:
        self.job = job
        self.worker_id = worker_id
        self.deps = deps
        self.client = client
        self._stop: StopSignal = threading.Event() if stop is None else stop
        self._worker_stops = worker_stops

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger named after the task; its records carry the job's id, task and attempt, and the caller's `extra`."""
        return _JobLogger(logging.getLogger(f"backfill.task.{self.job.task_identifier}"), fields_of(self.job))

    @property
    def attempt(self) -> int:
        """Which run of the job this is; the first is 1."""
        return self.job.attempts

    @property
    def should_stop(self) -> bool:
        """Whether the handler should end early: the worker stops, or the attempt is out of time. Safe from any thread.

        Async handlers are cancelled when their time is up; synchronous ones can only ask.
        """
        return self._stop.is_set()

    @property
    def stopping(self) -> bool:
        """Whether `should_stop` is true because the worker stops, or has lost the job. Safe from any thread.

        A handler that ends early then raises `Snooze(timedelta(0))`, which costs no attempt. Where the attempt is out of time
        and the worker goes on, this is False: the handler raises an error.
        """
        return self._worker_stops is not None and self._worker_stops()

    def __repr__(self) -> str:
        """The job and the worker."""
        return f"WorkerContext({self.job!r}, worker_id={self.worker_id!r})"
