"""An attempt under way in this process, and all the attempts that a worker holds."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable

from backfill.records import Job
from backfill.storage.attempts import Attempt
from backfill.storage.claim_kinds import IN_ROW, ClaimKind
from backfill.worker.execution.endings import Ending
from backfill.worker.execution.policy import NO_LIMITS, AttemptLimits
from backfill.worker.lanes.lane import Lane


class HeldJob(Attempt):
    """A claimed job: ready, or running.

    Attributes:
        lane: whose slot it uses.
        slot_taken_at: when its slot was taken, in monotonic seconds.
        ended: when its slot fell free, in monotonic seconds.
        limits: how long it may run.
        stopping: whether its handler should end.
        worker_stops: whether it should because the worker stops or has lost the job, and not only since its time is over.
        ending: how it ended; None until then.
        given_up: whether the worker cancelled it, at a shutdown or since it is not its own any more.
        lost: whether its job was found to be unlocked, or another's.
        task: the asyncio task, where it did not end at once.
        keep: how many seconds the task keeps its job's end; None where it keeps none.
        renewed: when its lock was renewed last, in monotonic seconds, or since when it is held.
    """

    __slots__ = (
        "_event",
        "ended",
        "ending",
        "given_up",
        "keep",
        "lane",
        "limits",
        "lost",
        "renewed",
        "slot_taken_at",
        "stopping",
        "task",
        "worker_stops",
    )

    def __init__(self, job: Job, lane: Lane, claim: ClaimKind = IN_ROW) -> None:
        super().__init__(job, claim)
        self.lane = lane
        self.slot_taken_at = 0.0
        self.ended = 0.0
        self.limits: AttemptLimits = NO_LIMITS
        self.keep: float | None = None
        self.stopping = False
        self.worker_stops = False
        self.ending: Ending | None = None
        self.given_up = False
        self.lost = False
        self.task: asyncio.Task[None] | None = None
        self.renewed: float | None = None
        self._event: threading.Event | None = None

    def is_set(self) -> bool:
        """Whether its handler should end: what the context asks."""
        return self.stopping

    def wait(self, timeout: float | None = None) -> bool:
        """Wait, in a thread, until its handler should end; whether it should. The event is made by the first who waits."""
        if self._event is None:
            self._event = threading.Event()
        # Looked at once the event is there for all to see: whoever asks sets the one first and looks for the other then.
        return self.stopping or self._event.wait(timeout)

    def ask_to_stop(self) -> None:
        """Its handler should end, since the worker stops or has lost the job."""
        self.worker_stops = True
        self.run_out_of_time()

    def run_out_of_time(self) -> None:
        """Its handler should end, since the attempt's time is over."""
        self.stopping = True
        if self._event is not None:
            self._event.set()


class HeldJobs(dict[int, HeldJob]):
    """The jobs that a worker has claimed and not settled, by the job's id.

    Everybody may read it as a dict. It changes only by `add`, `release` and `lose`.

    Args:
        on_loss: called with a job that is not this worker's any more.
    """

    def __init__(self, on_loss: Callable[[HeldJob], None]) -> None:
        super().__init__()
        self._on_loss = on_loss

    @property
    def lanes(self) -> set[Lane]:
        """The lanes whose jobs are held."""
        return {running.lane for running in self.values()}

    def add(self, claimed: Iterable[HeldJob]) -> None:
        """Hold jobs that were claimed just now."""
        for running in claimed:
            self[running.job.id] = running

    def release(self, batch: Iterable[HeldJob]) -> None:
        """Let go of jobs whose ends are written.

        One that was claimed again meanwhile is held as another attempt, and stays.
        """
        for running in batch:
            number = running.job.id
            if self.get(number) is running:
                del self[number]

    def lose(self, running: HeldJob) -> None:
        """Note that a job is not this worker's any more; it is held until its end is written all the same."""
        running.lost = True
        running.ask_to_stop()
        self._on_loss(running)
