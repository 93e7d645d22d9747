"""What the model of the queue is made of: jobs, attempts, dead letters and ends, and what is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Literal

Mode = Literal["replace", "preserve_run_at", "unsafe_dedupe"]
KEPT_TASK: Final = "kept"
TASKS: Final = (KEPT_TASK, "plain")


@dataclass(frozen=True, slots=True)
class Spec:
    """What a producer asks for.

    Attributes:
        key: the job's key, or None.
        mode: what becomes of a job that has the key.
        queue: the serial queue, or None.
        due: whether it may run at once; else in a day.
    """

    task: str
    payload: Any
    key: str | None = None
    mode: Mode = "replace"
    queue: str | None = None
    priority: int = 0
    max_attempts: int = 2
    due: bool = True


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt ends.

    Attributes:
        kind: completed, failed, given_back, snoozed or discarded.
        due: whether what follows is due at once.
        final: whether a failure leaves no other attempt.
        scheduled: whether the next attempt is left to the contract's schedule.
    """

    kind: str
    due: bool = True
    final: bool = False
    scheduled: bool = False


@dataclass(eq=False, slots=True)
class Job:
    """A row of the queue.

    Attributes:
        entry: the dead letter that it was requeued from, or None.
        run_at: None where the database has not said it yet.
        run_at_before: what it was before; it must have changed.
    """

    id: int
    task: str
    payload: Any
    key: str | None
    queue: str | None
    priority: int
    max_attempts: int
    due: bool
    attempts: int = 0
    revision: int = 0
    error: str | None = None
    entry: int | None = None
    run_at: int | None = None
    run_at_before: int | None = None
    held: Held | None = None

    @property
    def available(self) -> bool:
        """Whether it waits for an attempt, due or not."""
        return self.held is None and self.attempts < self.max_attempts

    @property
    def order(self) -> tuple[int, int, int]:
        """Where it stands among the jobs."""
        assert self.run_at is not None
        return self.priority, self.run_at, self.id

    def put_off(self, due: bool) -> None:
        """Its time changes."""
        self.due, self.run_at, self.run_at_before = due, None, self.run_at


@dataclass(eq=False, slots=True)
class Held:
    """An attempt: a worker's hold on a job, and the job as it was claimed.

    Attributes:
        superseded: whether its job was replaced or removed since.
    """

    worker: str
    job: Job
    claimed: Job
    superseded: bool = False


@dataclass(eq=False, slots=True)
class Letter:
    """An entry of the dead letters; `earlier` are the ids of the jobs that it held before, the newest first."""

    id: int | None
    job: int
    task: str
    payload: Any
    queue: str
    priority: int
    key: str | None
    attempts: int
    max_attempts: int
    error: str | None
    reason: str
    failures: int = 1
    requeues: int = 0
    requeued: int | None = None
    notes: str | None = None
    earlier: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True, order=True)
class End:
    """How a job finished whose task keeps it."""

    job: int
    task: str
    how: str
    attempts: int
    max_attempts: int
    priority: int
    queue: str | None
    key: str | None
    worker: str
    error: str | None
    result: str | None
