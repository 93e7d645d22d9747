"""Upkeep: the verbs by which workers keep counters, locks and partitions in order; only workers call them.

The public client does not have these verbs; `client/lent.py` adds them to the client of a worker's services.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from backfill.breakers import Breaker
from backfill.client.connect import ClientLife
from backfill.client.metering import count_released, counting_failures
from backfill.client.verbs import cleanup as verbs
from backfill.client.verbs import recovery
from backfill.client.verbs.attempts import Place, Swept, sweep_attempts
from backfill.client.verbs.breakers import end_trial, trip_breaker
from backfill.client.verbs.cancel import CancelledFound, find_cancelled
from backfill.client.verbs.cleanup import ReleasedLocks
from backfill.client.verbs.control import find_worker_controls
from backfill.client.verbs.counters import find_unknown_tasks, write_counters
from backfill.client.verbs.depth import QueueFound, look_at_queue, oldest_snapshot
from backfill.client.verbs.ends import tend_ends
from backfill.client.verbs.lanes import show_lanes
from backfill.client.verbs.limits import count_jobs, find_limits, resolve_limits, sweep_shares
from backfill.client.verbs.paused_queues import find_paused_queues
from backfill.client.verbs.places import find_places, show_place
from backfill.client.verbs.progress import (
    SweptProgress,
    forget_progress,
    read_checkpoint,
    sweep_progress,
    write_progress,
)
from backfill.client.verbs.recovery import DEAD_AFTER, Recovered
from backfill.client.verbs.reservations import SweptReservations, sweep_reservations
from backfill.controls import Control
from backfill.counts import UnknownFound, UnknownTask
from backfill.storage.counters import MinuteCounts
from backfill.storage.progress import Entry
from backfill.storage.recovery import CutOff, Next
from backfill.storage.schema.functions import FunctionsFound
from backfill.storage.shares import EffectiveLimit


class UpkeepVerbs(ClientLife):
    """The verbs that only workers call."""

    async def write_counters(self, worker: str, counts: Sequence[MinuteCounts]) -> float:
        """Write a worker's counts per minute as they are now; workers do this every 5 seconds.

        Args:
            worker: the worker's id.
            counts: the counts of each minute since the last call: the whole count of a minute, and not only what was
                added to it.

        Returns:
            The database's time, in Unix seconds.
        """
        return await self._run(write_counters(worker, counts))

    async def whose_functions(self) -> FunctionsFound:
        """Ask whose the functions `add_job` and `add_jobs` are, which another program may replace at any time."""
        return await self._run(verbs.whose_functions(self._schema))

    async def unknown_tasks(self, worker: str) -> list[UnknownTask]:
        """Find tasks with due jobs that none of our live workers knows, eleven at most, those with most jobs first.

        Args:
            worker: the worker that asks. Only the live worker with the smallest id gets an answer, so that one worker
                reports for all; workers whose protocol is older than the asking worker's do not count.
        """
        return (await self.find_unknown_tasks(worker, {})).tasks

    async def find_unknown_tasks(self, worker: str, floors: Mapping[int, int]) -> UnknownFound:
        """Look for unknown tasks as `unknown_tasks` does, from floors on; workers do this every half minute.

        Args:
            worker: the worker that asks, as for `unknown_tasks`.
            floors: for each priority about which something is known, the run_at at which the search begins, in Unix
                microseconds; other priorities are searched as a whole.
        """
        return await self._run(find_unknown_tasks(worker, floors))

    async def find_cancelled(self, worker: str, held: Collection[int]) -> CancelledFound:
        """Find out which of a worker's jobs were cancelled; workers ask this when they are told to look.

        Args:
            worker: the worker's id.
            held: the ids of the jobs that it holds.
        """
        return await self._run(find_cancelled(worker, held))

    async def find_worker_controls(self) -> list[Control]:
        """List what is said to the fleet, but for the pauses of serial queues, of which there may be thousands."""
        return await self._run(find_worker_controls())

    async def find_paused_queues(self) -> dict[str, int]:
        """Name the paused serial queues; workers ask this at their start and when they are told to look.

        Returns:
            The queues' ids by their names.
        """
        return await self._run(find_paused_queues())

    async def release_foreign_locks(
        self,
        *,
        queues: timedelta | None,
        jobs: timedelta | None,
        gone_for: timedelta = DEAD_AFTER,
        alone: bool = False,
    ) -> ReleasedLocks:
        """Unlock jobs and queues whose holders are not our workers; workers do this now and then.

        Args:
            queues: the age of the locks of queues; None leaves these locks.
            jobs: the age of the locks of jobs; None leaves these locks.
            gone_for: the age of the lock of a queue that is held under an id of our workers that has no row any more.
            alone: whether to do nothing if another worker is doing the same at the moment.

        Returns:
            How many locks were released.

        Raises:
            InvalidJobError: an age is out of range.
        """
        released = verbs.release_foreign_locks(queues=queues, jobs=jobs, gone_for=gone_for, alone=alone)
        operations = [name for name, age in (("queue_locks", queues), ("job_locks", jobs)) if age is not None]
        with counting_failures(*operations):
            return count_released(await self._run(released))

    async def look_at_queue(self, worker: str) -> QueueFound | None:
        """Count for the metrics what is in the queue; None if the worker is not the live one with the smallest id.

        Args:
            worker: the worker's id.
        """
        return await self._run(look_at_queue(worker))

    async def oldest_snapshot(self) -> float:
        """Tell for how many seconds the transaction has been open that keeps PostgreSQL from removing dead rows.

        Returns:
            The seconds; 0 where no transaction holds a snapshot that this role may see.
        """
        return await self._run(oldest_snapshot())

    async def is_first_worker(self, worker: str) -> bool:
        """Tell whether a worker has the smallest id of all live workers: it does what only one of them is to do."""
        return await self._run(verbs.is_first_worker(worker))

    async def show_lanes(self, worker: str, lanes: Sequence[Mapping[str, Any]]) -> None:
        """Have a worker's row show its lanes as they are now.

        Args:
            worker: the worker's id.
            lanes: its lanes, each with its name and its concurrency.
        """
        await self._run(show_lanes(worker, lanes))

    async def show_place(self, worker: str, place: Mapping[str, Any] | None) -> bool:
        """Have a worker's row say where its processes run, as `worker/liveness/places.py` gives it.

        Args:
            worker: the worker's id.
            place: the place; None where it cannot be told.

        Returns:
            Whether it does now; it does not if the worker was given up.
        """
        return await self._run(show_place(worker, place))

    async def find_places(self, process: Mapping[str, Any]) -> dict[str, str]:
        """Find the workers whose rows name a process as theirs.

        Args:
            process: the process, as a place without children.

        Returns:
            The place of each worker, as its row's JSON, by the worker's id.
        """
        return await self._run(find_places(process))

    async def recover_gone(
        self,
        worker: str,
        place: str,
        *,
        next_of: Callable[[CutOff], Next] = lambda _: Next(),
        dead_after: timedelta = DEAD_AFTER,
    ) -> Recovered | None:
        """Unlock the jobs and queues of a worker whose processes are gone for certain.

        Args:
            worker: the worker's id.
            place: the JSON of its row's place, whose processes were all found to be gone.
            next_of: decides what happens to a job next, as for `recover_worker`.
            dead_after: how long a worker may be silent, as for `recover_worker`.

        Returns:
            What was done; None if the row names other processes by now, or is gone.
        """
        return await self._run(recovery.recover_gone(worker, place, next_of, dead_after))

    async def recover_late(
        self,
        worker: str,
        before: Recovered,
        *,
        next_of: Callable[[CutOff], Next] = lambda _: Next(),
        dead_after: timedelta = DEAD_AFTER,
    ) -> Recovered:
        """Unlock what a worker's last claim has locked after the worker was recovered as gone.

        The server may still carry out a claim when the process that sent it is gone already.

        Args:
            worker: the worker's id; nobody may call this for a worker that was not gone for certain.
            before: what `recover_gone` has recovered.
            next_of: decides what happens to a job next, as for `recover_worker`.
            dead_after: how long a worker may be silent, as for `recover_worker`.

        Returns:
            What was recovered now, without what was recovered before.
        """
        return await self._run(recovery.recover_late(worker, before, next_of, dead_after))

    async def trip_breaker(self, task: str, names: Iterable[str], breaker: Breaker) -> Control | None:
        """Open the breaker of a task if the task has dead letters enough and the breaker is not open.

        Args:
            task: the task's name.
            names: all names under which its jobs may stand, that one included.
            breaker: how many dead letters are enough, and how long the task is paused then.

        Returns:
            The control that says so now; None if it has not opened by this call.
        """
        return await self._run(trip_breaker(task, names, breaker))

    async def end_trial(self, task: str, control: int, *, failed: bool) -> Control | None:
        """Say how the job ended that was tried after a breaker's pause.

        Args:
            task: the task's name.
            control: the id of the control by which the breaker was open.
            failed: whether the attempt failed, so that the breaker opens again; else it closes.

        Returns:
            The control that stands now, or the one that is gone; None if this changed nothing, since another control
            stands by now.
        """
        return await self._run(end_trial(task, control, failed=failed))

    async def find_limits(self) -> dict[str, EffectiveLimit]:
        """Find the limits that hold in the whole fleet now, by task; workers keep to them."""
        return await self._run(find_limits())

    async def resolve_limits(self) -> None:
        """Work out anew which limits hold, from what operators say and what workers declare; tell workers of changes.

        The database does so by itself at each change. This is for changes that it missed, since it had to wait too long
        for other changes.
        """
        await self._run(resolve_limits())

    async def count_jobs(self, task: str, jobs: Iterable[int]) -> None:
        """Count jobs for the limit of their task, which began to hold while they ran; others start when they ended.

        Args:
            task: the task under whose name the limit stands.
            jobs: the ids of jobs that a worker runs. Those that no worker has locked any more are passed over.
        """
        await self._run(count_jobs(task, jobs))

    async def sweep_shares(self) -> int:
        """Delete what limits keep for values that nobody uses any more, and slots beyond a limit that was lowered.

        Returns:
            For how many values it did, 500 at most.
        """
        return await self._run(sweep_shares())

    async def tend_ends(self, keeps: Iterable[timedelta]) -> tuple[int, int]:
        """Make the partitions of ends for today and tomorrow, and drop those whose time is over; workers do this.

        Args:
            keeps: how long tasks keep their ends.

        Returns:
            How many partitions were made, and how many partitions and rows without a partition were dropped.

        Raises:
            InvalidJobError: `keeps` is not a list of timedeltas over zero.
            psycopg.errors.LockNotAvailable: others are using the tables; nothing is lost, and a later call can succeed.
        """
        return await self._run(tend_ends(keeps))

    async def sweep_attempts(self, place: Place | None) -> Swept:
        """Delete attempts whose jobs are gone, among 1,000 attempts; workers do this now and then.

        Attempts beyond the newest 20 of a job are deleted too, if they are among the 1,000.

        Args:
            place: where to begin; anywhere if it is None.
        """
        return await self._run(sweep_attempts(place))

    async def sweep_reservations(self, since: str | None) -> SweptReservations:
        """Delete reservations of keys whose time is over, 1,000 at most.

        Args:
            since: the place of the last one, from which this one goes on; None to begin with the oldest.
        """
        return await self._run(sweep_reservations(since))

    async def write_progress(self, worker: str, entries: Sequence[Entry]) -> set[int]:
        """Write what running attempts have said about their progress; workers do this once a second at most.

        Args:
            worker: the worker's id.
            entries: what each of the attempts has said since it was written last.

        Returns:
            The ids of the jobs for which it was written; the others are held by somebody right now, or lost.
        """
        return await self._run(write_progress(worker, entries))

    async def read_checkpoint(self, job: int) -> bytes | None:
        """Read the checkpoint of a job as JSON text; None if there is none. Workers do this before an attempt."""
        return await self._run(read_checkpoint(job))

    async def forget_progress(self, jobs: Collection[int]) -> None:
        """Delete the progress of jobs, of those that are gone by now."""
        await self._run(forget_progress(jobs))

    async def sweep_progress(self, place: int) -> SweptProgress:
        """Delete the progress of jobs that are gone, among 1,000 rows; workers do this now and then.

        Args:
            place: the id of the job after which to begin.
        """
        return await self._run(sweep_progress(place))
