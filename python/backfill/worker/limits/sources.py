"""The sources of a worker: all its limited tasks, lane by lane, and what becomes of the jobs that they bring."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from backfill.storage.shares import EffectiveLimit, Share
from backfill.storage.wire import Command
from backfill.worker.execution.executor import Executor
from backfill.worker.execution.held_job import HeldJob
from backfill.worker.lanes.lane import Lane
from backfill.worker.limits.look import Answer, AnySource, LimitedLook
from backfill.worker.limits.portion import Portion
from backfill.worker.limits.roster import CommonLook, Roster
from backfill.worker.limits.share import passes, settled
from backfill.worker.limits.source import Source
from backfill.worker.limits.value_source import ValueSource

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult


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
        roster: which of them look by themselves.
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
        self._without_share = set[HeldJob]()
        self._limits: dict[str, EffectiveLimit] = {}
        self._ids: Mapping[str, int] = {}
        self._paused = frozenset[str]()
        self.all: list[AnySource] = []
        self.roster = Roster(patience)

    def __bool__(self) -> bool:
        """Whether any task is limited."""
        return bool(self.all)

    @property
    def scanning(self) -> list[Source | Roster]:
        """The sources that go through the queue as lanes do, from floors, and what looks for those that sleep."""
        return [*(source for source in self.roster.active if isinstance(source, Source)), self.roster]

    @property
    def are_shut(self) -> bool:
        """Whether none of them takes any jobs now."""
        return not any(source.known for source in self.all)

    @property
    def sated(self) -> bool:
        """Whether no look is under way, and none would bring a job that may run now."""
        return self.roster.sated and not any(source.under_way or source.may_find for source in self.roster.active)

    def bind(self, ids: Mapping[str, int]) -> None:
        """Note the ids that tasks have now."""
        self._ids = ids
        self._bind_all()

    def pause(self, tasks: frozenset[str]) -> None:
        """Let no source look for jobs of these tasks; those of others are looked for again."""
        self._paused = tasks
        self._bind_all()

    def _bind_all(self) -> None:
        changed = []
        for source in self.all:
            before = source.known
            source.bind(self._ids, self._paused)
            if source.known is not before:
                changed.append(source)
        if changed:
            self.roster.renew(self.all, changed)

    def apply(self, limits: Mapping[str, EffectiveLimit]) -> dict[str, list[int]]:
        """Keep to these limits from now on, by the names of the tasks whose jobs they are for.

        Jobs that run go on. Jobs that wait for a share of a limit that is lower now, or that is no more, go back.

        Args:
            limits: the limit of each task of this worker that has one.

        Returns:
            The jobs that run already and that limits begin to count, by the limits' tasks: their ids.
        """
        uncounted = self._uncounted(limits)
        if limits == self._limits:
            return uncounted
        self._limits = dict(limits)
        earlier = {(source.lane, source.limit.task, type(source)): source for source in self.all}
        same = {source: source.limit for source in self.all}
        self.all = []
        for lane in self._lanes:
            for limit, names in _by_limit(limits, lane.claim.tasks):
                for kind in (Source, ValueSource) if limit.by is not None else (Source,):
                    self._serve(earlier.pop((lane, limit.task, kind), None), lane, limit, names, kind)
        for source in earlier.values():
            self._retire(source)
        self.roster.renew(self.all, [source for source in self.all if same.get(source) is not source.limit])
        self._stir()
        return uncounted

    def _uncounted(self, limits: Mapping[str, EffectiveLimit]) -> dict[str, list[int]]:
        """The jobs that run and have no share of a limit that begins to hold, or that counts by another field now."""
        begun = {name for name, limit in limits.items() if limit.begins_to_count(self._limits.get(name))}
        lost, self._without_share = self._without_share, set()
        uncounted: dict[str, list[int]] = {}
        for running in self._executor.held.values() if begun or lost else ():
            name = running.job.task_identifier
            if (
                running.ending is None
                and running.slot_taken_at
                and (name in begun or (running in lost and name in limits))
            ):
                uncounted.setdefault(limits[name].task, []).append(running.job.id)
        return uncounted

    def looks(self, lane: Lane, now: float, freed: Sequence[int]) -> list[LimitedLook]:
        """The looks that a lane's sources make in a turn that begins now.

        Args:
            lane: the lane.
            now: the time, in monotonic seconds.
            freed: serial queues that the settlement of the same turn frees.
        """
        active = self.roster.active
        return [source.look(now, freed) for source in active if source.lane is lane and source.looks_in(now) == 0.0]

    def hunger(self) -> None:
        """Have all sources look, since there may be jobs for any of them."""
        self.roster.hunger()

    def free(self, freed: Sequence[int], looks: Iterable[LimitedLook]) -> None:
        """Tell the sources that did not look in a turn which serial queues it freed."""
        looked = {one.source for one in looks}
        for source in self.roster.active:
            if source not in looked:
                source.free(freed)

    def returned(self, running: HeldJob) -> None:
        """Take note that a job waits again as before its attempt."""
        for source in self.all:
            if source.lane is running.lane and running.job.task_identifier in source.names:
                source.returned(running.job)
                self.roster.activate(source)

    def looks_in(self, now: float) -> float | None:
        """Seconds until a source has a reason to look; None where there is none."""
        waits = [source.looks_in(now) for source in self.roster.active]
        waits.append(self.roster.looks_in(now))
        return min((wait for wait in waits if wait is not None), default=None)

    def commands(self, looks: Iterable[LimitedLook], common: CommonLook | None) -> list[Command]:
        """The statements of looks: each takes shares first, and then claims as many jobs as may start."""
        commands = [] if common is None else common.commands(self._schema)
        return commands + [
            command for one in looks for command in one.commands(schema=self._schema, worker=self._worker)
        ]

    def missed(self, looks: Iterable[LimitedLook], common: CommonLook | None) -> None:
        """Take note that looks brought nothing, since their turn was refused or its answer was lost."""
        for one in looks:
            one.missed()
        if common is not None:
            self.roster.missed(common)

    def took(
        self, looks: Iterable[LimitedLook], common: CommonLook | None, results: list[PGresult], answer: Answer
    ) -> None:
        """Take in what looks brought; the jobs that may start are among their lanes' ready ones then.

        Args:
            looks: the looks.
            common: the look for all sources that sleep, if there was one.
            results: the results of a turn, of which those of the looks come first; these are taken out.
            answer: when and how the turn was answered.
        """
        if common is not None:
            self.roster.took(common, results.pop(0), answer)
        for one in looks:
            brought = one.took(results, answer)
            self.roster.note(one.source, answer.now, found=bool(brought.jobs))
            if brought.stale:
                self.read_again()
            if claimed := self._executor.take_in(brought.jobs, one.source.lane):
                self._place(one.source, claimed, brought.shares)

    def start(self, looks: Iterable[LimitedLook]) -> None:
        """Start the jobs that looks brought; what has no slot in a lane where attempts are long goes back."""
        for lane in {one.source.lane for one in looks}:
            self._executor.dispatch(lane)
            if not lane.ahead:
                self._executor.undo_all(lane.take_surplus())

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
        portion.again.freed()  # the turn that writes the end may take the share again
        return False

    @property
    def have_shares(self) -> bool:
        """Whether a job of this worker has had a share."""
        return self._have_shares

    def passes(self, batch: Iterable[HeldJob]) -> list[tuple[int, int]]:
        """Which shares must move in the transaction that writes these ends: from which job to which."""
        return passes(batch)

    def passed(self, asked: Iterable[tuple[int, int]], passed: frozenset[int]) -> None:
        """Take note of which shares moved in a transaction, and of those that did not, since they were lost before.

        The job that runs with a lost share runs on; no other one starts with it, and it is counted in another slot.
        """
        lost = {begun for _, begun in asked} - passed
        if not lost:
            return
        for running in self._executor.held.values():
            share = running.share
            if share is not None and share.rows & lost and not share.over:
                share.portion.close(share)
                self._without_share.add(share.holder)
                self.read_again()

    def settled(self, batch: Iterable[HeldJob]) -> None:
        """Take note that these ends are written."""
        settled(batch)

    @property
    def _portions(self) -> Iterator[Portion]:
        """What the sources have of their limits; those that are not active have nothing."""
        return (portion for source in self.roster.active for portion in source.portions)

    def withdraw_all(self) -> list[HeldJob]:
        """Take out all the jobs that wait for a share or for their time."""
        return [running for portion in self._portions for running in portion.withdraw_all()]

    def give_way(self, now: float) -> None:
        """Give back jobs that wait too long for a share, so that other workers can have them."""
        for portion in self._portions:
            at = portion.stalls_at()
            if at is not None and now >= at:
                self._executor.undo_all(portion.withdraw_waiting())

    def stall_in(self, now: float) -> float | None:
        """Seconds until a job will have waited too long for a share; None where none waits."""
        times = (portion.stalls_at() for portion in self._portions)
        return min((at - now for at in times if at is not None), default=None)

    def _serve(
        self,
        earlier: AnySource | None,
        lane: Lane,
        limit: EffectiveLimit,
        names: tuple[str, ...],
        kind: type[Source | ValueSource],
    ) -> None:
        """Have a source for a limit in a lane: the earlier one, where it can go on with the limit as it is now."""
        if earlier is not None and earlier.serves(limit, names):
            if limit != earlier.limit:
                self._executor.undo_all(earlier.change(limit))
            self.all.append(earlier)
            return
        if earlier is not None:
            self._retire(earlier)
        source: AnySource = (
            ValueSource(lane, limit, limit.by, names)
            if kind is ValueSource and limit.by is not None
            else Source(lane, limit, names, patience=self._patience)
        )
        source.bind(self._ids, self._paused)
        self.all.append(source)

    def _place(self, source: AnySource, claimed: list[HeldJob], shares: Sequence[Share]) -> None:
        """Give claimed jobs their shares, and have each start when it may."""
        if source.retired:
            self._executor.undo_all(claimed)
            return
        lane, at_once, ahead = source.lane, list[HeldJob](), list[tuple[HeldJob, Portion]]()
        for running, share in zip(claimed, shares, strict=True):
            portion = source.portion(share.value)
            if not share.has_share:
                ahead.append((running, portion))
                continue
            if share.slot is not None:
                self._have_shares = True
                portion.take(running, share.slot)
            if share.start > 0:
                portion.reserve(running, share.start, self._start)
            else:
                at_once.append(running)
        lane.add(self._executor.park(at_once))
        may_wait = set(self._sifted([running for running, _ in ahead])) if ahead else set()
        for running, portion in ahead:
            if running not in may_wait:
                continue
            if portion.used or portion.has_idle:
                lane.add(portion.wait([running]))
            else:
                self._executor.undo(running)

    def _sifted(self, ahead: list[HeldJob]) -> list[HeldJob]:
        """Give back the jobs of some that must not wait here for a share; return the others."""
        executor = self._executor
        if executor.paused.names:
            ahead = executor.paused.sift(ahead)
        if executor.paused_queues:
            ahead = executor.paused_queues.sift(ahead)
        if executor.stragglers.have_lost_jobs:
            self._executor.undo_all(running for running in ahead if executor.stragglers.have_lost(running.job.id))
            ahead = [running for running in ahead if running.ending is None]
        return ahead

    def _start(self, running: HeldJob) -> None:
        """Start a job at the time that was reserved for it."""
        lane = running.lane
        lane.add(self._executor.park([running]))
        self._executor.dispatch(lane)

    def _retire(self, source: AnySource) -> None:
        """Let a source go: its limit is no more, or is counted in another way."""
        source.retired = True
        for portion in source.portions:
            self._executor.undo_all([*portion.tighten(0), *portion.withdraw_all()])


def _by_limit(
    limits: Mapping[str, EffectiveLimit], tasks: Iterable[str]
) -> list[tuple[EffectiveLimit, tuple[str, ...]]]:
    """The limits that concern some tasks, each with the names of those tasks: aliases share their task's limit."""
    names: dict[str, list[str]] = {}
    for name in tasks:
        if (limit := limits.get(name)) is not None:
            names.setdefault(limit.task, []).append(name)
    return [(limits[several[0]], tuple(several)) for several in names.values()]
