"""The sources of a worker: all its limited tasks, lane by lane, and what becomes of the jobs that they bring."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from backfill.storage.shares import EffectiveLimit, read_grants, take_command
from backfill.storage.wire import Command
from backfill.worker.execution.executor import Executor
from backfill.worker.execution.held_job import HeldJob
from backfill.worker.lanes.lane import Lane
from backfill.worker.limits.share import passes, settled
from backfill.worker.limits.source import LimitedLook, Source

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

    from backfill.storage.shares import Grant


class Sources:
    """The sources of one worker; there are none where no task is limited, and then all of this costs nothing.

    Args:
        executor: runs the jobs.
        lanes: the lanes, in the order in which they are served.
        schema: the queue's schema.
        worker: the worker's id.
        patience: how many seconds pass at least between two looks from the start where they are dear.
        fleet: returns how many live workers know a task that this worker knows.
        stir: called when there is a reason to look now.

    Attributes:
        all: the sources, in the order of their lanes.
    """

    def __init__(
        self,
        executor: Executor,
        lanes: Sequence[Lane],
        *,
        schema: str,
        worker: str,
        patience: float,
        fleet: Callable[[], int],
        stir: Callable[[], None],
    ) -> None:
        self._executor = executor
        self._lanes = lanes
        self._schema = schema
        self._worker = worker
        self._patience = patience
        self._fleet = fleet
        self._stir = stir
        self.read_again: Callable[[], None] = lambda: None
        """Called when a limit is not what this worker knows."""
        self._have_shares = False
        self._limits: dict[str, EffectiveLimit] = {}
        self._ids: Mapping[str, int] = {}
        self._paused = frozenset[str]()
        self.all: list[Source] = []

    def __bool__(self) -> bool:
        """Whether any task is limited."""
        return bool(self.all)

    @property
    def sated(self) -> bool:
        """Whether no look is under way, and none would bring a job that may run now."""
        return not any(source.under_way or source.may_find for source in self.all)

    def bind(self, ids: Mapping[str, int]) -> None:
        """Note the ids that tasks have now."""
        self._ids = ids
        self._bind_all()

    def pause(self, tasks: frozenset[str]) -> None:
        """Let no source look for jobs of these tasks; those of others are looked for again."""
        self._paused = tasks
        self._bind_all()

    def _bind_all(self) -> None:
        for source in self.all:
            source.bind(self._ids, self._paused)

    def apply(self, limits: Mapping[str, EffectiveLimit]) -> None:
        """Keep to these limits from now on, by the names of the tasks whose jobs they are for.

        Jobs that run go on. Jobs that wait for a share of a limit that is lower now, or that is no more, go back.

        Args:
            limits: the limit of each task of this worker that has one.
        """
        if limits == self._limits:
            return
        self._limits = dict(limits)
        earlier = {(source.lane, source.limit.task): source for source in self.all}
        self.all = []
        for lane in self._lanes:
            for limit, names in _by_limit(limits, lane.claim.tasks):
                source = earlier.pop((lane, limit.task), None)
                if source is None or not source.serves(limit, names):
                    if source is not None:
                        self._retire(source)
                    source = Source(lane, limit, names, patience=self._patience)
                    source.bind(self._ids, self._paused)
                elif limit != source.limit:
                    self._executor.undo_all(source.change(limit))
                self.all.append(source)
        for source in earlier.values():
            self._retire(source)
        self._stir()

    def looks(self, lane: Lane, now: float, freed: Sequence[int]) -> list[LimitedLook]:
        """The looks that a lane's sources make in a turn that begins now.

        Args:
            lane: the lane.
            now: the time, in monotonic seconds.
            freed: serial queues that the settlement of the same turn frees.
        """
        looks = []
        for source in self.all:
            if source.lane is lane and source.looks_in(now) == 0.0:
                if freed:
                    source.horizon.free(freed)
                looks.append(source.look(now))
        return looks

    def free(self, freed: Sequence[int], looks: Iterable[LimitedLook]) -> None:
        """Tell the sources that did not look in a turn which serial queues it freed."""
        looked = {one.source for one in looks}
        for source in self.all:
            if source not in looked:
                source.horizon.free(freed)
                source.hungry = True

    def returned(self, running: HeldJob) -> None:
        """Take note that a job waits again as before its attempt."""
        for source in self.all:
            if source.lane is running.lane and running.job.task_identifier in source.names:
                source.horizon.returned(running.job)

    def looks_in(self, now: float) -> float | None:
        """Seconds until a source has a reason to look; None where there is none."""
        waits = (source.looks_in(now) for source in self.all)
        return min((wait for wait in waits if wait is not None), default=None)

    def commands(self, looks: Iterable[LimitedLook]) -> list[Command]:
        """The statements of looks: each takes shares first, and then claims as many jobs as may start."""
        commands = []
        for one in looks:
            commands.append(take_command(one.ask, schema=self._schema))
            commands += one.source.commands(one.look, worker=self._worker)
        return commands

    def missed(self, looks: Iterable[LimitedLook]) -> None:
        """Take note that looks brought nothing, since their turn was refused or its answer was lost."""
        for one in looks:
            one.source.missed(one.look)

    def took(
        self,
        looks: Iterable[LimitedLook],
        results: list[PGresult],
        names: Mapping[int, str],
        *,
        seconds: float,
        now: float,
        clock: int | None,
        newest: bool,
    ) -> None:
        """Take in what looks brought; the jobs that may start are among their lanes' ready ones then.

        Args:
            looks: the looks.
            results: the results of a turn, of which those of the looks come first; these are taken out.
            names: the tasks' names by their ids.
            seconds: how long the turn took.
            now: the time, in monotonic seconds.
            clock: the database's time when the turn began, or a little less; None where it is not known.
            newest: whether nothing has called for a look since the turn began.
        """
        for one in looks:
            source, grant = one.source, read_grants(results.pop(0))
            count = source.claim.count(one.look)
            taken = source.claim.read(results[:count], names)
            del results[:count]
            allowed = grant.granted + one.ask.ahead
            if allowed:
                source.learn(one.look, allowed, taken, seconds=seconds, now=now, clock=clock, newest=newest)
            else:
                source.missed(one.look)
            if grant.wait is not None or grant.granted < one.ask.wanted:
                source.portion.refused(now, wait=grant.wait, busy=grant.busy, fleet=self._fleet())
            elif one.ask.wanted:
                source.portion.hurry()
            if grant.stale:
                self.read_again()
            if claimed := self._executor.take_in(taken.jobs, source.lane):
                self._place(source, claimed, grant, now)

    def start(self, looks: Iterable[LimitedLook]) -> None:
        """Start the jobs that looks brought; what has no slot in a lane where attempts are long goes back."""
        for lane in {one.source.lane for one in looks}:
            self._executor.dispatch(lane)
            if not lane.ahead:
                self._executor.return_surplus(lane)

    def ended(self, running: HeldJob) -> bool:
        """Take note that a job with a share has ended; return whether another one starts with the share."""
        share = running.share
        assert share is not None  # noqa: S101 - it is only called for such jobs
        portion = share.portion
        following = portion.ended(running, share)
        if following is not None:
            following.lane.add([following])
            return True
        if not portion.used:
            self._executor.undo_all(portion.withdraw_waiting())
        portion.hurry()  # the turn that writes the end may take the share again
        return False

    @property
    def have_shares(self) -> bool:
        """Whether a job of this worker has had a share."""
        return self._have_shares

    def passes(self, batch: Iterable[HeldJob]) -> list[tuple[int, int]]:
        """Which shares must move in the transaction that writes these ends: from which job to which."""
        return passes(batch)

    def settled(self, batch: Iterable[HeldJob]) -> None:
        """Take note that these ends are written."""
        settled(batch)

    def withdraw_all(self) -> list[HeldJob]:
        """Take out all the jobs that wait for a share or for their time."""
        return [running for source in self.all for running in source.portion.withdraw_all()]

    def give_way(self, now: float) -> None:
        """Give back jobs that wait too long for a share, so that other workers can have them."""
        for source in self.all:
            at = source.portion.stalls_at()
            if at is not None and now >= at:
                source.portion.slow_down()
                self._executor.undo_all(source.portion.withdraw_waiting())

    def stall_in(self, now: float) -> float | None:
        """Seconds until a job will have waited too long for a share; None where none waits."""
        times = (source.portion.stalls_at() for source in self.all)
        return min((at - now for at in times if at is not None), default=None)

    def _place(self, source: Source, claimed: list[HeldJob], grant: Grant, now: float) -> None:
        """Give claimed jobs their shares, and have each start when it may."""
        if source.retired:
            self._executor.undo_all(claimed)
            return
        portion, lane = source.portion, source.lane
        granted, ahead = claimed[: grant.granted], claimed[grant.granted :]
        if source.limit.most is not None:
            self._have_shares = True
            for running, slot in zip(granted, grant.slots, strict=False):
                portion.take(running, slot)
        at_once = granted
        if grant.starts:
            at_once = []
            for running, seconds in zip(granted, grant.starts, strict=False):
                if seconds > 0:
                    portion.reserve(running, seconds, self._start)
                else:
                    at_once.append(running)
        lane.add(self._executor.park(at_once))
        lane.add(portion.wait(self._sifted(ahead), now))
        if not portion.used:
            self._executor.undo_all(portion.withdraw_waiting())

    def _sifted(self, ahead: list[HeldJob]) -> list[HeldJob]:
        """Give back the jobs of some that must not wait here for a share; return the others."""
        executor = self._executor
        if executor.paused.names:
            ahead = executor.paused.sift(ahead)
        if executor.stragglers.have_lost_jobs:
            self._executor.undo_all(running for running in ahead if executor.stragglers.have_lost(running.job.id))
            ahead = [running for running in ahead if running.ending is None]
        return ahead

    def _start(self, running: HeldJob) -> None:
        """Start a job at the time that was reserved for it."""
        lane = running.lane
        lane.add(self._executor.park([running]))
        self._executor.dispatch(lane)

    def _retire(self, source: Source) -> None:
        """Let a source go: its limit is no more, or is counted in another way."""
        source.retired = True
        self._executor.undo_all([*source.portion.tighten(0), *source.portion.withdraw_all()])


def _by_limit(
    limits: Mapping[str, EffectiveLimit], tasks: Iterable[str]
) -> list[tuple[EffectiveLimit, tuple[str, ...]]]:
    """The limits that concern some tasks, each with the names of those tasks: aliases share their task's limit."""
    names: dict[str, list[str]] = {}
    for name in tasks:
        if (limit := limits.get(name)) is not None:
            names.setdefault(limit.task, []).append(name)
    return [(limits[several[0]], tuple(several)) for several in names.values()]
