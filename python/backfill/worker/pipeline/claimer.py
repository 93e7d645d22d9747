"""The claimer: knows what each lane wants, and when there is a reason to look for jobs.

There is one when it is woken, when a job falls due, when a slot falls free while jobs are known to wait, and once in
each poll's interval. The claimer sends nothing itself: the pumps ask it for looks and tell it what they brought.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from backfill.storage.arrays import text_array
from backfill.storage.claims import Look, Taken
from backfill.storage.wire import Command
from backfill.storage.workers import Around, Levels, read_around, read_levels
from backfill.worker.execution.executor import Executor
from backfill.worker.execution.held_job import HeldJob
from backfill.worker.lanes.full_looks import SHARE
from backfill.worker.lanes.lane import Lane
from backfill.worker.lanes.learning import learn
from backfill.worker.lanes.making import common_front
from backfill.worker.limits.look import Answer, LimitedLook
from backfill.worker.limits.roster import Roster
from backfill.worker.limits.source import Source
from backfill.worker.limits.sources import Sources
from backfill.worker.liveness.failure_detector import LOOK_SECONDS
from backfill.worker.liveness.health import Pulse
from backfill.worker.liveness.lookout import Lookout
from backfill.worker.pipeline.asked import Asked
from backfill.worker.pipeline.database_clock import DatabaseClock
from backfill.worker.pipeline.known_tasks import KnownTasks
from backfill.worker.pipeline.timetable import Timetable

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

LARGEST_CLAIM: Final = 500
BACKLOG: Final = 250
_LEVELS_SECONDS: Final = 10.0
_SHORTEST_WAIT: Final = 0.001


class Claimer:
    """Decides when the lanes look for jobs, and for how many.

    Args:
        executor: runs the jobs.
        lanes: the lanes, in the order in which they are served.
        limits: the sources of limited tasks, which look apart.
        schema: the queue's schema.
        worker: the worker's id.
        tasks: the names of the tasks that the worker knows.
        poll_interval: seconds between looks that nothing asked for.
        stir: called when there is a reason to look now.
        fleet: returns how many live workers know a task that this worker knows, this worker included.
        lookout: takes in what is seen of the other workers.
        lost: called when a look finds that this worker itself was given up.
        pulse: told of each answer of the database.

    Attributes:
        known: the tasks as the lanes claim them.
        wakes: how often there was a reason for all lanes to look.
        clock: the database's clock.
        closed: whether it looks no more.
        windows_look: called when lanes whose parallel jobs windows take should look.
    """

    def __init__(
        self,
        executor: Executor,
        lanes: list[Lane],
        limits: Sources,
        *,
        schema: str,
        worker: str,
        tasks: tuple[str, ...],
        poll_interval: float,
        stir: Callable[[], None],
        fleet: Callable[[], int],
        lookout: Lookout,
        lost: Callable[[], None],
        pulse: Pulse,
    ) -> None:
        self._executor = executor
        self.lanes = lanes
        self._limits = limits
        self._schema = schema
        self._worker = worker
        self._tasks = tasks
        self._stir = stir
        self.known = KnownTasks(tasks, lanes)
        self.closed = False
        self.wakes = 0
        self._times = Timetable(poll_interval)
        self._levels_at = 0.0
        self.clock = DatabaseClock()
        self.fleet = fleet
        self._lookout = lookout
        self._lost = lost
        self._around_at = 0.0
        self.pulse = pulse
        self.windows_look: Callable[[], None] = lambda: None

    @property
    def knows_tasks(self) -> bool:
        """Whether all of the worker's tasks have ids."""
        return self.known.are_complete

    @property
    def _is_shut(self) -> bool:
        """Whether neither a lane nor a source takes any jobs, so that it does not matter which jobs there are."""
        return all(lane.shut for lane in self.lanes) and self._limits.are_shut

    @property
    def sated(self) -> bool:
        """Whether no look is under way, and no lane that has room could get more jobs by another look."""
        sated = all(lane.sated for lane in self.lanes) and not self.known.wanted
        return sated and (not self._limits or self._limits.sated)

    @property
    def _lookers(self) -> list[Lane | Source | Roster]:
        """The lanes, and the sources of limited tasks: all that look for jobs."""
        return [*self.lanes, *self._limits.scanning] if self._limits else list(self.lanes)

    def close(self) -> None:
        """Stop looking."""
        self.closed = True

    def wake(self) -> None:
        """Have all lanes look, since there may be jobs for any of them."""
        self.wakes += 1
        self._times.due_known = False
        self._hunger()
        self._stir()

    def doubt(self) -> None:
        """Distrust earlier looks from the start: only one that begins from now on can tell that nothing is left."""
        for one in self._lookers:
            one.horizon.doubt()

    def insist(self) -> None:
        """Look again at once where the last look could not afford to see everything, whatever the next one costs.

        It is meant for a worker that has nothing to do and shall end once nothing is left.
        """
        for one in self._lookers:
            if one.look_at is not None and not one.under_way:
                one.horizon.afford()
                one.look_at = 0.0
                self._stir()

    def hear(self, count: int) -> None:
        """Take note that another process has added `count` jobs, which every worker of the fleet hears.

        Only as many workers look at once as the jobs may need, and a few more; the others look a little later.
        """
        fleet = self.fleet()
        if self._times.moves_first(count, fleet):
            self.wake()
        elif self._times.look_late(fleet):
            self._stir()

    def freed_queue(self, queues: Sequence[int] = (), *, resumed: bool = False) -> None:
        """Have all lanes look, since serial jobs have ended here or queues were resumed; try the given queues first.

        The next job of the ended job's queue may be claimed in the same round trip as the settlement.
        """
        self.wakes += 1  # a look under way does not know of the freed queue
        self._hunger()
        for one in self._lookers:
            one.horizon.free(queues, resumed=resumed)

    def forget(self) -> None:
        """Ask for the tasks' ids again: the database refused a look, perhaps because the ids have changed."""
        self.known.wanted = True

    def returned(self, running: HeldJob) -> None:
        """Take note that a job waits again as before its attempt."""
        running.lane.horizon.returned(running.job)
        if self._limits:
            self._limits.returned(running)

    def due_in(self, now: float) -> float | None:
        """Seconds until there is a reason to look; None where there is none."""
        if self.closed:
            return None
        if self.known.wanted or any(lane.low and not lane.in_windows for lane in self.lanes):
            return 0.0
        times = [lane.look_at for lane in self.lanes if lane.look_at is not None and lane.room > 0]
        times += [lane.horizon.serial_at(now) for lane in self.lanes if lane.waits_for_serial]
        if self._limits and (wait := self._limits.looks_in(now)) is not None:
            times.append(now + wait)
        return min([self._times.next_at, self._around_at, *times]) - now

    def backlog(self) -> bool:
        """Whether there is room, and a reason, for a large claim beside the one under way.

        A worker that holds no job has no reason: the look under way will tell whether there are any jobs.
        """
        if self.closed or not self._executor.held:
            return False
        lanes = [lane for lane in self.lanes if not (lane.ordered or lane.in_windows)]
        return any(lane.asked and lane.low and lane.room >= BACKLOG for lane in lanes)

    def ask(self, now: float, freed: Sequence[int] = ()) -> Asked:
        """What a turn that begins now should ask for; the lanes count on its jobs until `took` or `missed` is called.

        Args:
            now: the time, in monotonic seconds.
            freed: serial queues that the settlement of the same turn frees: the turn's own looks see them free, while
                other looks do not yet.
        """
        if self.closed:
            return Asked.nothing(freed)
        self.keep_time(now)
        looks, limited, common = [], list[LimitedLook](), self._limits.roster.look(now) if self._limits else None
        for lane in self.lanes:
            low = self.knows_tasks and lane.low
            if self._limits:
                limited += self._limits.looks(lane, now, freed)
            if lane.in_windows:
                if self.knows_tasks and (serial := lane.look_serial(LARGEST_CLAIM, now)) is not None:
                    looks.append((lane, serial))
            elif lane.shut:
                if low and not lane.limited:  # no look will come for which it could wait
                    lane.holding = False
                    self._executor.dispatch(lane)
            elif low:
                if freed:
                    lane.horizon.free(freed)
                looks.append((lane, lane.look(LARGEST_CLAIM, now)))
        full = any(look.full or lane.horizon.behind_at() is not None for lane, look in looks)
        full = full or any(lane.in_windows and now >= lane.horizon.full_at for lane in self.lanes)
        around = self.known.wanted or now >= self._around_at
        if around:
            self._around_at = now + LOOK_SECONDS
        rare = full or self.known.wanted or not self._executor.held  # a worker at rest learns at once what is due next
        levels = rare and (now >= self._levels_at or not self._times.due_known) and not self._is_shut
        return Asked(looks, levels=levels, around=around, wakes=self.wakes, freed=freed, limited=limited, common=common)

    def behind_in(self, now: float) -> float | None:
        """Seconds until a lane should look behind its floors, apart from its other looks; None where none should."""
        if self.closed or not self.knows_tasks:
            return None
        times = [lane.horizon.behind_at() for lane in self.lanes if lane.may_look_behind]
        return min((at - now for at in times if at is not None), default=None)

    def ask_behind(self, now: float) -> Asked:
        """What a turn should ask for that only looks behind floors; it does nothing else, since it may take long."""
        looks = []
        for lane in self.lanes:
            at = lane.horizon.behind_at()
            if at is not None and at <= now and lane.may_look_behind and not self.closed:
                looks.append((lane, lane.look_behind(now)))
        return Asked(looks, levels=False, around=False, wakes=self.wakes)

    def commands(self, asked: Asked) -> list[Command]:
        """The statements of a turn, to be sent after its settlement."""
        commands = []
        if asked.around:
            parameters = text_array(self._tasks), *self._lookout.parameters()
            commands.append(Command.of("look_around", self._schema, *parameters))
        if asked.levels:
            front = common_front(self._lookers)
            commands.append(Command.of("find_levels", self._schema, front.lows, front.highs, front.floors))
        commands += self._limits.commands(asked.limited, asked.common)
        for lane, look in asked.looks:
            commands += lane.claim.commands(look, worker=self._worker, bound=lane.bound)
        return commands

    def took(self, asked: Asked, results: list[PGresult]) -> None:
        """Take in what a turn brought, and start the jobs.

        Args:
            asked: what the turn asked for.
            results: the results of its commands; each is taken out of the list, so that no large one stays in memory
                while its jobs run.
        """
        now = time.monotonic()
        seconds = now - asked.began
        if asked.freed:
            self._free_for_others(asked)
        if asked:
            self.pulse.claimed = now
        if asked.around:
            self._look_around(read_around(results.pop(0)), asked.began)
        if asked.levels:
            self._know_levels(read_levels(results.pop(0)), now, seconds)
            self._times.due_known = asked.wakes == self.wakes  # else a job may have come since
        if asked.limited or asked.common:
            clock, newest = self.clock.at(asked.began), asked.wakes == self.wakes
            answer = Answer(self.known.names, seconds, now, clock, newest, self.fleet())
            self._limits.took(asked.limited, asked.common, results, answer)
        for lane in asked.holding:  # others began to hold after the turn was asked for
            lane.holding = False
        for lane, look in asked.looks:
            count = lane.claim.count(look)
            taken = lane.claim.read(results[:count], self.known.names, tracked=look.tracked)
            del results[:count]
            if taken.jobs and (claimed_at := taken.jobs[0].locked_at_micros) is not None:
                self.clock.note(claimed_at, now)
            self._learn(lane, look, taken, asked, seconds=seconds, now=now)
            self._executor.hold(taken.jobs, lane)
        self._limits.start(asked.limited)

    def missed(self, asked: Asked) -> None:
        """Take note that a turn brought nothing, since it was refused or its answer was lost."""
        self._lookout.forget()
        for lane, look in asked.looks:
            lane.answered(look)
            lane.hungry = lane.serial_hungry = True
            lane.horizon.missed(look)
            self._look_behind_is_over(look)
        self._limits.missed(asked.limited, asked.common)

    def _learn(self, lane: Lane, look: Look, taken: Taken, asked: Asked, *, seconds: float, now: float) -> None:
        look, complete = learn(lane, look, taken, seconds=seconds, now=now, clock=self.clock.at(asked.began))
        self._look_behind_is_over(look)
        self.wakes += taken.cut  # a look beside this one saw the jobs that were cut off as locked
        if look.serial_alone:
            lane.serial_hungry = bool(taken.jobs) or not complete or asked.wakes != self.wakes
            return
        if len(taken.jobs) >= look.wanted or look.tie is not None:  # from a place it has not seen all jobs
            lane.hungry = True  # also where another look at the same time found less
            return
        if look.behind:
            if lane.look_at is not None:
                lane.look_at = max(lane.horizon.next_look_at(now), now)
            return
        if asked.wakes != self.wakes:
            return
        lane.hungry = False
        lane.look_at = None if complete else max(lane.horizon.next_look_at(now), now)

    def _look_behind_is_over(self, look: Look) -> None:
        if look.behind:
            self._stir()  # the second pump made it, which asks for nothing else by itself

    def _free_for_others(self, asked: Asked) -> None:
        """Tell the lanes that did not look in a turn which queues it freed: only now can their looks see them free."""
        looked = {lane for lane, _ in asked.looks}
        if self._limits:
            self._limits.free(asked.freed, asked.limited)
        for lane in self.lanes:
            if lane not in looked:
                lane.horizon.free(asked.freed)
                lane.hungry = True
                if lane.low:
                    self._stir()  # the turn may have been the second pump's, which asks for nothing by itself

    def keep_time(self, now: float) -> None:
        """Have lanes look where it is time: for a poll, for a job that fell due, or for a look that can be afforded."""
        if self._times.strike(now):
            self.wakes += 1  # a look under way began before the time of a job that is due now
            self._hunger()
        for one in self._lookers:
            if one.look_at is not None and now >= one.look_at:
                one.look_at, one.hungry = None, True

    def _hunger(self) -> None:
        for one in self.lanes:
            one.hungry = one.serial_hungry = True
        self._limits.hunger()
        self.windows_look()

    def _know_levels(self, levels: Levels, now: float, seconds: float) -> None:
        self.clock.note(levels.clock, now)
        for one in self._lookers:
            one.horizon.know(levels.due, now)
        due = [wait for wait in levels.due.values() if wait is not None]
        self._times.due_at = now + max(min(due), _SHORTEST_WAIT) if due else None
        self._levels_at = now + max(_LEVELS_SECONDS, SHARE * seconds)

    def _look_around(self, around: Around, began: float) -> None:
        self.know_tasks(around.tasks)
        if not self._lookout.take_in(around, began):
            # The heartbeat has its own connection, and may be the one part that cannot learn this from the database.
            self.closed = True
            self._lost()

    def know_tasks(self, ids: Mapping[str, int]) -> None:
        """Note the ids that tasks have now."""
        self.known.learn(ids)
        self._limits.bind(ids)

    def leave_out(self, reason: str, tasks: frozenset[str]) -> None:
        """Leave tasks out of the lanes' claims for a reason, in the place of those left out for this reason before.

        Jobs of these tasks stay in their lanes: no other lane takes them. Looks under way may still bring some.

        Args:
            reason: why they are left out, such as "paused"; each reason has tasks of its own.
            tasks: their names.
        """
        if self.known.leave_out(reason, tasks):
            self.wakes += 1  # looks under way do not see the jobs of the tasks that came back
            self._times.due_known = False
            self._stir()
