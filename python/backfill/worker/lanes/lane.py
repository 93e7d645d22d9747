"""A lane at work: its free slots, the jobs that it holds ready, and whether more may be waiting."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Protocol

from backfill.storage.claims import Bound, LaneClaim, Look
from backfill.worker.config import AHEAD_BYTES, QueueConfig
from backfill.worker.lanes.full_looks import PATIENCE_SECONDS
from backfill.worker.lanes.scan_cursor import ScanCursor

if TYPE_CHECKING:
    from backfill.worker.execution.held_job import HeldJob

AHEAD_SECONDS: Final = 0.05
MOST_AHEAD: Final = 2_000
_LIGHT: Final = 2 * MOST_AHEAD
"""Payloads are light where this many of average size have no more bytes together than may lie ready."""
_WEIGHT: Final = 1 / 8
_FIRST_ENDS: Final = 16
_SAMPLE: Final = 8


class Looker(Protocol):
    """What looks for jobs: a lane, or the source of a limited task."""

    @property
    def horizon(self) -> ScanCursor:
        """What it has learnt of the queue."""
        ...


class Lane:
    """One lane of a running worker.

    Attributes:
        config: its name, its filter, and the concurrency with which it starts.
        concurrency: how many of its jobs may run at once now; operators can change it.
        claim: how it claims.
        horizon: what it has learnt of the queue.
        free: how many slots no attempt uses. It is negative while more attempts run than may, since the concurrency was
            lowered under them.
        ready: jobs that are claimed and wait for a slot, in the contract's order.
        asked: how many jobs the looks under way may bring.
        beside: whether a look began while another was under way; such looks pass over the jobs that the other has
            locked.
        behind: whether a look behind the floors is under way; its jobs are not counted in `asked`.
        budgets: how many bytes of payloads the looks under way may bring beyond what the free slots need.
        heavy: whether payloads were large lately, so that it matters how much memory they take.
        hungry: whether more jobs may be waiting, as far as the last look could tell.
        look_at: when to look again, where the last look could not afford to see everything; else None.
        bound: the parameters of its filters.
        shut: whether all of its tasks are left out for a while, so that it takes no jobs.
        ordered: whether it has one slot and so runs jobs one after the other, so that one can see their order.
        limited: how many looks for jobs of limited tasks are under way, which are made apart from its usual looks.
        windows: whether windows may take its parallel jobs.
        served: whether a window is open that looks for its next jobs with its end, so that nobody else need do so.
        serial_hungry: whether more serial jobs may be waiting, where windows take the parallel ones.
        serial_asked: whether a look for serial jobs alone is under way.
        lowered: whether looks that began before the concurrency was lowered may bring more jobs than there is room for.
        unseen: how many ends there are until the next one that is measured; after the first ones each eighth is.
        refill: the lane asks for more when no more jobs than this are ready or asked for.
        holding: whether a lane of one slot waits for a serial job to be settled, since the next job of its queue may
            come before those that are ready. With more slots nobody can tell in which order jobs begin; with one
            everybody can.
    """

    __slots__ = (
        "_ahead", "_bytes", "_ends", "_most_ahead", "_seconds", "_size", "asked", "behind", "beside", "bound",
        "budgets", "claim", "concurrency", "config", "free", "heavy", "holding", "horizon", "hungry", "limited",
        "look_at", "lowered", "ordered", "ready", "refill", "serial_asked", "serial_hungry", "served", "shut",
        "started_at", "unseen", "windows",
    )  # fmt: skip

    def __init__(
        self,
        config: QueueConfig,
        claim: LaneClaim,
        ahead_bytes: int = AHEAD_BYTES,
        *,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self.config = config
        self.claim = claim
        self.concurrency = config.concurrency
        self.lowered = False
        self.ordered = config.concurrency == 1
        self.horizon = ScanCursor(patience=patience, apart=not self.ordered)
        self.free = config.concurrency
        self.ready: deque[HeldJob] = deque()
        self.asked = 0
        self.beside = False
        self.behind = False
        self.budgets = 0
        self.heavy = False
        self._bytes = ahead_bytes
        self._size = 0.0
        self._most_ahead = MOST_AHEAD if ahead_bytes else 0
        self.hungry = True
        self.look_at: float | None = None
        self.bound: Bound = ((), ())
        self.shut = False
        self.limited = 0
        self.windows = False
        self.served = False
        self.serial_hungry = True
        self.serial_asked = False
        self.holding = False
        self.started_at = 0.0
        self._seconds = AHEAD_SECONDS
        self._ahead = 0
        self._ends = 0
        self.unseen = 1
        self.refill = 0

    def bind(self, task_ids: Mapping[str, int], left_out: frozenset[str] = frozenset()) -> None:
        """Note the ids that tasks have now, and the tasks whose jobs the lane does not take for a while."""
        self.bound = self.claim.bind(task_ids, left_out)
        self.shut = bool(left_out) and left_out.issuperset(self.claim.tasks)
        self.horizon.parts = self.claim.has_flags
        self.horizon.tracks = self.horizon.parts or not left_out.isdisjoint(self.claim.tasks)

    def look_anew(self) -> None:
        """Look from the start soon, since the jobs that the lane may take are others than before."""
        self.horizon.reset()
        self.hungry = self.serial_hungry = True

    @property
    def ahead(self) -> int:
        """How many jobs to claim beyond the free slots: what will start within about 50 ms; none when jobs are long."""
        return self._ahead

    @property
    def room(self) -> int:
        """How many more jobs the lane would take now."""
        return 0 if self.shut else self.space

    @property
    def most_ahead(self) -> int:
        """How many jobs may be claimed ahead at most, by the size of their payloads."""
        return self._most_ahead

    @property
    def space(self) -> int:
        """How many more jobs it has space for, whether it takes any by its usual looks or not."""
        return self._space - self.asked

    @property
    def under_way(self) -> bool:
        """Whether one of its usual looks is under way."""
        return self.asked > 0 or self.behind

    @property
    def sated(self) -> bool:
        """Whether none of its looks is under way, and it could get no more jobs by another look, or has no room."""
        if self.asked or self.behind or self.serial_asked:
            return False
        more = self.hungry or self.look_at is not None or (self.in_windows and self.serial_hungry)
        return not (more and self.room > 0)

    @property
    def low(self) -> bool:
        """Whether the lane should be filled up now, or has to find out whether it must go on waiting for a look."""
        if self.ordered and (self.asked or self.limited or self.holding):
            return self.holding and not self.asked and not self.limited and self.free > 0
        return not self.served and self.wants

    @property
    def wants(self) -> bool:
        """Whether it has room for as many jobs that a look is worth while, and more may be waiting."""
        waiting = len(self.ready) + self.asked
        return self.hungry and waiting <= self.refill and not self.shut and self.free + self._ahead > waiting

    @property
    def in_windows(self) -> bool:
        """Whether windows take its parallel jobs now; then its usual looks are for serial jobs alone."""
        return self.windows and not self.ordered and not self.shut

    def withdraw_all(self, chosen: Collection[HeldJob]) -> None:
        """Take some jobs out of those that are ready."""
        left = [running for running in self.ready if running not in chosen]
        self.ready.clear()  # the same deque is filled again, since the executor may be starting its jobs
        self.ready.extend(left)

    @property
    def waits_for_serial(self) -> bool:
        """Whether a look for serial jobs alone should be made as soon as it can be afforded."""
        return self.in_windows and self.serial_hungry and not self.serial_asked and self._space > 0

    @property
    def _space(self) -> int:
        return self.free + self._ahead - len(self.ready)

    @property
    def may_look_behind(self) -> bool:
        """Whether a look behind the floors may begin.

        It may where there is room, or where there was room until a look under way asked for all of it. Without the
        second case, a lane whose slots are filled as soon as they fall free would never look there.
        """
        return not self.behind and not self.shut and (self.room > 0 or self.asked > 0)

    def note_end(self, seconds: float) -> None:
        """Note how long an attempt had its slot, for an attempt that is measured."""
        self._ends += 1
        self.unseen = 1 if self._ends < _FIRST_ENDS else _SAMPLE
        self._seconds += (seconds - self._seconds) * _WEIGHT
        if self._seconds >= AHEAD_SECONDS:
            self._look_ahead(0)
        else:
            self._look_ahead(self._within_ahead())

    def _within_ahead(self) -> int:
        """How many jobs will start within about 50 ms, at the rate at which slots fall free."""
        return min(self._most_ahead, int(self.concurrency * AHEAD_SECONDS / max(self._seconds, 1e-6)))

    def set_concurrency(self, concurrency: int) -> None:
        """Let this many jobs run at once from now on; no running one is touched.

        The caller gives back what `take_surplus` returns, and has the lane's ready jobs started.
        """
        self.free += concurrency - self.concurrency
        self.lowered = self.lowered or concurrency < self.concurrency
        self.concurrency = concurrency
        if self._ahead:
            self._look_ahead(self._within_ahead())
        if self.ordered is not (concurrency == 1):
            self.ordered = not self.ordered
            # A lane that becomes ordered looks before it starts the next job: one that its last attempts have freed
            # may come before those that are ready.
            self.holding = self.ordered
            self.horizon.look_apart(not self.ordered)

    def take_ready(self) -> list[HeldJob]:
        """Take out the ready jobs."""
        ready = list(self.ready)
        self.ready.clear()
        return ready

    def take_surplus(self) -> list[HeldJob]:
        """Take out the ready jobs that come last and for which there is no room, since the concurrency was lowered."""
        if not self.asked and not self.behind:
            self.lowered = False
        fitting = max(self.free + self._ahead, 0)
        return [self.ready.pop() for _ in range(len(self.ready) - fitting)]

    def note_payloads(self, jobs: int, size: int) -> None:
        """Note the size of the payloads that a look brought: the larger they are, the fewer jobs are claimed ahead.

        If the size grows, the lane follows at once; if it shrinks, the lane follows step by step.
        """
        average = size / jobs
        self._size = max(average, (self._size + average) / 2)
        self.heavy = self._size * _LIGHT > self._bytes
        most = min(MOST_AHEAD, int(self._bytes / max(self._size, 1.0)))
        if most != self._most_ahead:
            self._most_ahead = most
            self._look_ahead(min(self._ahead, most))

    def look(self, most: int, now: float, *, window: bool = False) -> Look:
        """The look that fills the lane up; the lane counts on its jobs until it is answered.

        The bytes that a look may bring are bounded too, except for the jobs that free slots wait for. Where payloads
        are light, two looks can be under way, so each may bring half of the bytes that may lie ready. Where these are
        used up, a look may still bring one job.

        Args:
            most: the most jobs that it may ask for.
            now: the time, in monotonic seconds.
            window: whether a window makes it.
        """
        slots = self._waiting_slots()
        wanted = min(max(self.room, 1), most)
        if self.heavy:
            budget = max(self._bytes - self._ready_bytes() - self.budgets, 1)
            wanted = min(wanted, max(slots + int(budget / self._size), 1))
        else:
            left = self._bytes - int(len(self.ready) * self._size) - self.budgets
            budget = max(min(left, self._bytes // 2), 1)
        self.beside = self.asked > 0 or self.behind
        self.asked += wanted
        self.budgets += budget
        look = self.horizon.look_window(wanted, now) if window else self.horizon.look(wanted, now)
        return replace(look, slots=slots, budget=budget)

    def look_serial(self, most: int, now: float) -> Look | None:
        """A look for serial jobs alone, where windows take the others; None where there is no room or no reason.

        The lane does not count on its jobs. It has room for them also while a window asks for all the rest.

        Args:
            most: the most jobs that it may ask for.
            now: the time, in monotonic seconds.
        """
        if not self.waits_for_serial:
            return None
        space = self._space
        look = self.horizon.look_serial(min(max(self.room, min(space, self.concurrency)), most), now)
        if look is None:
            return None
        self.serial_asked = True
        budget = max(self._bytes - self._ready_bytes() - self.budgets, 1)
        self.budgets += budget
        return replace(look, slots=min(self._waiting_slots(), look.wanted), budget=budget)

    def look_behind(self, now: float) -> Look:
        """The look for jobs before the floors, beside other looks; the lane does not count on the few jobs it asks for.

        Args:
            now: the time, in monotonic seconds.
        """
        budget = max(self._bytes - self._ready_bytes() - self.budgets, 1)
        self.behind = True
        self.beside = self.beside or self.asked > 0
        self.budgets += budget
        return replace(self.horizon.look_behind(self.room, now), slots=self._waiting_slots(), budget=budget)

    def answered(self, look: Look) -> None:
        """Take note that a look is not under way any more."""
        self.budgets -= look.budget
        if look.behind:
            self.behind = False
        elif look.serial_alone:
            self.serial_asked = False
        else:
            self.asked -= look.wanted

    def look_limited(self, look: Look) -> Look:
        """A look for jobs of a limited task, with the bytes that it may bring; the lane does not count on its jobs.

        How many of them may run is only known with the answer, so that a usual look beside it asks for as many jobs.

        Args:
            look: the look without bounds for payloads.
        """
        budget = max(self._bytes - self._ready_bytes() - self.budgets, 1)
        self.limited += 1
        self.budgets += budget
        return replace(look, slots=min(self._waiting_slots(), look.wanted), budget=budget)

    def limited_answered(self, look: Look) -> None:
        """Take note that a look for jobs of a limited task is not under way any more."""
        self.limited -= 1
        self.budgets -= look.budget

    def _waiting_slots(self) -> int:
        """How many free slots there are for which no job is ready and none is asked for."""
        return max(self.free - len(self.ready) - self.asked, 0)

    def _ready_bytes(self) -> int:
        return sum(len(running.job.payload_bytes) for running in self.ready)

    def stalled(self, now: float) -> bool:
        """Whether ready jobs have waited too long for a slot, so that other workers should have them."""
        return bool(self.ready) and now >= self.stalls_at()

    def stalls_at(self) -> float:
        """When ready jobs will have waited too long for a slot, in monotonic seconds."""
        return self.started_at + 5 * AHEAD_SECONDS

    def slow_down(self) -> None:
        """Claim no jobs ahead until attempts are short again."""
        self._seconds = 2 * AHEAD_SECONDS
        self._look_ahead(0)

    def _look_ahead(self, jobs: int) -> None:
        self._ahead, self.refill = jobs, jobs // 2

    def add(self, claimed: list[HeldJob]) -> None:
        """Put claimed jobs among those that are ready."""
        if self.ready and claimed and _key(self.ready[-1]) > _key(claimed[0]):
            ordered = sorted([*self.ready, *claimed], key=_key)
            self.ready.clear()  # the same deque is filled again, since the executor may be starting its jobs
            self.ready.extend(ordered)
        else:
            self.ready.extend(claimed)

    def __repr__(self) -> str:
        """The lane's name, its free slots and its ready jobs."""
        return f"Lane({self.config.name!r}, {self.free}/{self.concurrency} free, {len(self.ready)} ready)"


def _key(running: HeldJob) -> tuple[int, int, int]:
    job = running.job
    return job.priority, job.run_at_micros, job.id
