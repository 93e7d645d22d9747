"""What a handler is given beside its payload."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

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


class WorkerContext(Generic[D]):
    """A handler's second argument: the job it runs, and what its worker shares. `D` is what the lifespan yields.

    Attributes:
        job: the row, as it was claimed.
        worker_id: of the worker that runs it.
        deps: what the registry's lifespan yielded; None where it has none.
        client: a client on the worker's own pool, to enqueue or read with. It is the worker's: closing it, or leaving
            `async with ctx.client`, closes nothing.
    """

    __slots__ = ("_stop", "client", "deps", "job", "worker_id")

    def __init__(
        self, *, job: Job, worker_id: str, deps: D, client: BackfillClient, stop: StopSignal | None = None
    ) -> None:
        self.job = job
        self.worker_id = worker_id
        self.deps = deps
        self.client = client
        self._stop: StopSignal = threading.Event() if stop is None else stop

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger named after the task; its records carry the job's id, task and attempt."""
        extra = {"job_id": self.job.id, "task": self.job.task_identifier, "attempt": self.job.attempts}
        return logging.LoggerAdapter(logging.getLogger(f"backfill.task.{self.job.task_identifier}"), extra)

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

    def __repr__(self) -> str:
        """The job and the worker."""
        return f"WorkerContext({self.job!r}, worker_id={self.worker_id!r})"
