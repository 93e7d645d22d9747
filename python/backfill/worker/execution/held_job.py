"""An attempt under way in this process, and all the attempts that a worker holds."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Protocol

from backfill.cancels import Cancellation
from backfill.records import Job
from backfill.storage.attempts import Attempt
from backfill.storage.claim_kinds import IN_ROW, ClaimKind
from backfill.worker.execution.endings import COMMITTED, Ending
from backfill.worker.execution.policy import NO_LIMITS, AttemptLimits
from backfill.worker.lanes.lane import Lane

if TYPE_CHECKING:
    from backfill.worker.execution.own_end import OwnEnd
    from backfill.worker.limits.share import Share


class KeepsBack(Protocol):
    """What keeps claimed jobs back which may not start yet, although a slot may be free."""

    def withdraw(self, running: HeldJob) -> None:
        """Take out a job that is kept back."""
        ...


class WindowClaim(ClaimKind, Protocol):
    """The claim of a window, which holds jobs by the locks of their rows alone.

    Attributes:
        fresh_until: until when its jobs may start without a question, in monotonic seconds.
    """

    fresh_until: float

    def may_start(self) -> bool:
        """Whether the job's handler may start now; if not, the window lets the job go."""
        ...

    def ended(self, running: HeldJob) -> None:
        """Take note that the job's attempt has ended."""
        ...


class HeldJob(Attempt):
    """A claimed job: ready, or running.

    Attributes:
        lane: whose slot it uses.
        slot_taken_at: when its slot was taken, in monotonic seconds.
        began: when its handler began, in monotonic seconds, where the executor notes that; 0.0 until then. Jobs that
            take their slots together begin one after the other.
        ended: when its slot fell free, in monotonic seconds.
        limits: how long it may run.
        stopping: whether its handler should end.
        worker_stops: whether its handler should end because the worker stops or has lost the job, and not only because
            its time is over.
        ending: how it ended; None until then.
        given_up: whether the worker cancelled it, at a shutdown or because the job is not this worker's any more.
        lost: whether the job was found to be unlocked, or locked by another worker.
        task: the asyncio task; None where the attempt ended in its first step, without a wait.
        keep: how many seconds the end of the job is kept; None where it is not kept.
        cancellation: who cancelled the job, and why; None where nobody has, as far as this worker knows.
        share: its share of its task's limit; None where the task has no limit, or the job waits for a share.
        kept_back: what keeps it back; None where it may start as soon as a slot is free, and once it has started.
        own: the state of its handler's own transaction; None where the handler has opened none.
        window: the window that holds it; None once its claim is in its row.
        renewed: when its lock was renewed last, in monotonic seconds; before the first time, since when it is held.
    """

    __slots__ = (
        "_event",
        "began",
        "cancellation",
        "ended",
        "ending",
        "given_up",
        "keep",
        "kept_back",
        "lane",
        "limits",
        "lost",
        "own",
        "renewed",
        "share",
        "slot_taken_at",
        "stopping",
        "task",
        "window",
        "worker_stops",
    )

    def __init__(self, job: Job, lane: Lane, claim: ClaimKind = IN_ROW, window: WindowClaim | None = None) -> None:
        super().__init__(job, claim)
        self.lane = lane
        self.window = window
        self.slot_taken_at = 0.0
        self.began = self.ended = 0.0
        self.limits: AttemptLimits = NO_LIMITS
        self.keep: float | None = None
        self.stopping = False
        self.worker_stops = False
        self.ending: Ending | None = None
        self.given_up = False
        self.lost = False
        self.task: asyncio.Task[None] | None = None
        self.cancellation: Cancellation | None = None
        self.renewed: float | None = None
        self.share: Share | None = None
        self.own: OwnEnd | None = None
        self.kept_back: KeepsBack | None = None
        self._event: threading.Event | None = None

    @property
    def has_committed(self) -> bool:
        """Whether its handler's own transaction has completed the job."""
        return self.own is not None and self.own.ending is COMMITTED

    def is_set(self) -> bool:
        """Whether its handler should end; the handlers' context asks this."""
        return self.stopping

    def wait(self, timeout: float | None = None) -> bool:
        """Wait, in a thread, until its handler should end; return whether it should. The first wait makes the event."""
        if self._event is None:
            self._event = threading.Event()
        # `stopping` is read after the event was made, for `run_out_of_time` sets it first and looks for an event then.
        return self.stopping or self._event.wait(timeout)

    def withdraw(self) -> bool:
        """Take it out of the jobs that wait for a slot, or of those that are kept back; return whether it was there."""
        if self in self.lane.ready:
            self.lane.ready.remove(self)
        elif self.kept_back is not None:
            self.kept_back.withdraw(self)
        else:
            return False
        return True

    def ask_to_stop(self) -> None:
        """Ask its handler to end, since the worker stops or has lost the job."""
        self.worker_stops = True
        self.run_out_of_time()

    def tell_stops(self, event: threading.Event) -> None:
        """Have an event set each time its handler is asked to end, and at once if it was asked already."""
        self._event = event
        if self.stopping:
            event.set()

    def run_out_of_time(self) -> None:
        """Ask its handler to end, since the attempt's time is over."""
        self.stopping = True
        if self._event is not None:
            self._event.set()


class HeldJobs(dict[int, HeldJob]):
    """The jobs that a worker has claimed and not settled, by the job's id.

    Everybody may read it as a dict. Only `add` and `release` change it.

    Args:
        on_loss: called with a job that is not this worker's any more.
        on_release: called with jobs that are let go of.

    Attributes:
        renewal: held while locks are renewed.
    """

    def __init__(
        self,
        on_loss: Callable[[HeldJob], None],
        on_release: Callable[[Collection[HeldJob]], None] = lambda _: None,
    ) -> None:
        super().__init__()
        self._on_loss = on_loss
        self._on_release = on_release
        self.renewal = asyncio.Lock()

    @property
    def lanes(self) -> set[Lane]:
        """The lanes whose jobs are held."""
        return {running.lane for running in self.values()}

    def add(self, claimed: Iterable[HeldJob]) -> None:
        """Hold jobs that were claimed just now."""
        for running in claimed:
            self[running.job.id] = running

    def release(self, batch: Collection[HeldJob]) -> None:
        """Let go of jobs whose ends are written.

        A job that was claimed again meanwhile is held as another attempt, and stays.
        """
        for running in batch:
            number = running.job.id
            if self.get(number) is running:
                del self[number]
        self._on_release(batch)

    def lose(self, running: HeldJob) -> None:
        """Note that a job is not this worker's any more; it is still held until the end of its attempt is written."""
        running.lost = True
        running.ask_to_stop()
        self._on_loss(running)
