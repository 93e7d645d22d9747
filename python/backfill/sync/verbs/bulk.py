"""The verb `enqueue_bulk` adds many jobs, all or nothing or in committed parts, with memory for a few chunks.

Written by tools/sync_verbs.py from `client/bulk/verb.py`: change the asynchronous verb, and run it again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar, Unpack, overload

from backfill.client.prepare import BulkKeywords
from backfill.jobs import BulkOutcome, JobSpec, NewJob
from backfill.storage.types import Lent
from backfill.sync.base import Verbs
from backfill.tasks import PayloadOf, Task

P = TypeVar("P")


class BulkVerb(Verbs):
    """The verb that adds many jobs."""

    @overload
    def enqueue_bulk(
        self,
        jobs: Iterable[NewJob[Any]],
        /,
        *,
        commit_every: int | None = None,
        return_ids: bool = False,
        spec: JobSpec | None = None,
        connection: Lent | None = None,
        **keywords: Unpack[BulkKeywords],
    ) -> BulkOutcome: ...
    @overload
    def enqueue_bulk(
        self,
        task: Task[P, Any],
        payloads: Iterable[PayloadOf[P] | NewJob[Any]],
        /,
        *,
        commit_every: int | None = None,
        return_ids: bool = False,
        spec: JobSpec | None = None,
        connection: Lent | None = None,
        **keywords: Unpack[BulkKeywords],
    ) -> BulkOutcome: ...
    @overload
    def enqueue_bulk(
        self,
        task: str,
        payloads: Iterable[Any],
        /,
        *,
        commit_every: int | None = None,
        return_ids: bool = False,
        spec: JobSpec | None = None,
        connection: Lent | None = None,
        **keywords: Unpack[BulkKeywords],
    ) -> BulkOutcome: ...
    def enqueue_bulk(
        self,
        jobs: Iterable[NewJob[Any]] | Task[Any, Any] | str,
        payloads: Iterable[Any] | None = None,
        /,
        *,
        commit_every: int | None = None,
        return_ids: bool = False,
        spec: JobSpec | None = None,
        connection: Lent | None = None,
        **keywords: Unpack[BulkKeywords],
    ) -> BulkOutcome:
        """Add many jobs: `enqueue_bulk(task.job(p) for p in ...)` or `enqueue_bulk(task, payloads)`.

        The call adds all jobs or none: it is one transaction, and an error undoes it. With `commit_every=n`, every n
        jobs are committed as they come. Jobs are sent by COPY, in chunks of 2,000 jobs, or about a megabyte. Memory
        holds two or three chunks, whatever the number of jobs. Workers are notified once per transaction.

        The iterable may itself use the client, or wait for somebody who does: while the iterable is read, the call
        holds nothing that another call could wait for. Jobs with keys, and jobs whose task or queue is new and cannot
        be made at once, wait in a temporary table of the transaction and are written when the iterable is at its end.
        For an iterable of more than one chunk, the call never takes the client's last connection: if only that one is
        left, it uses an extra connection outside the pool until the call ends. A generator is closed when the call
        ends, however it ends.

        The run_at of a job that is due at once is the database's time when the job's chunk was read, so that the jobs
        of a long call do not all share one time; `delay` counts from that time too. This time never goes back within a
        transaction, and is never later than the commit.

        If plugins of the client have interceptors of `BeforeJobSchedule`, they are asked about each item when it is
        read. Skip leaves the item out, and the outcome counts it. Fail stops the call, as a bad item does.

        Jobs of one serial queue that have no key run in the order given. Jobs with keys are added or applied as
        `enqueue` does; if a key comes twice, its jobs are applied in order. Each chunk, each mode and each repetition
        of a key takes a statement of its own. Jobs with `unique_for` are written in the order of their keys, before the
        other jobs with keys. Calls that write keys in more than one statement do so one after the
        other: they take a lock of the schema when the iterable is at its end. The new names of tasks and queues that a
        call made stay when the call is undone; they do no harm.

        Args:
            jobs: any iterable of `NewJob`s, which may be of different tasks; or a task, or a task's name, to go with
                `payloads`.
            payloads: any iterable of that task's payloads; an item may be a NewJob instead.
            commit_every: commit after every so many jobs, from 1; not possible inside a caller's transaction.
            return_ids: whether to return the jobs' ids, in the order of the jobs; memory then holds a number for each
                job.
            spec: settings for all jobs, which apply where a job's own spec gives none; without a job_key.
            connection: a connection of yours to write on. The call writes inside the connection's transaction, in a
                savepoint that an error undoes alone; in autocommit it uses a transaction of its own. The iterable may
                use this connection too. After the call, the caller's transaction holds the keys and the new names that
                were written, and a lock of the schema if there were any, until it ends. Calls that use these keys or
                names, and bulk calls that write keys in several statements, wait for the end of that transaction. The
                transaction must therefore not wait for such calls.
            keywords: the same settings as in `spec`: `run_at`, `delay`, `priority`, `queue`, `max_attempts`, `retry`,
                `timeout`, `deadline`, `flags`, `limit_by`, `unique_for`; and `notify` (False: the workers are not told
                of the jobs).

        Returns:
            How many jobs were written, their ids where they were asked for, how many items interceptors left out, and
            how many jobs with `unique_for` were not added, because their keys are reserved.

        Raises:
            BulkEnqueueError: the call stopped before the end. `written` says how many jobs are committed. `unknown`
                says how many more may be, because the connection was lost during their commit. `index` says which item
                was bad, could not be read, or was refused by an interceptor. `__cause__` is the reason, such as the
                error that the item, the iterable or an interceptor raised, or a `JobScheduleRefusedError`.
            InvalidJobError: an argument is bad, such as a single payload or job in the place of many.
            TypeError: a setting was given twice, or a keyword is unknown.
            DatabaseConnectionError: there was no connection at the start.
            ClientClosedError: the client was closed.
        """
        answer: BulkOutcome = self._run(
            self._verbs.enqueue_bulk(
                jobs,
                payloads,
                commit_every=commit_every,
                return_ids=return_ids,
                spec=spec,
                connection=connection,
                **keywords,
            )
        )
        return answer
