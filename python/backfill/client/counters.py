"""Counters: how attempts ended, by task, worker and time; and what workers do for them: write, fold, look for unknown tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Final, cast, get_args

import orjson

from backfill.checks import IDENTIFIER_LIMIT, KEY_LIMIT, check_text, check_time
from backfill.client.connect import ClientLife
from backfill.client.execute import run, text
from backfill.client.pages import time, whole
from backfill.client.prepare import Parameters, moment
from backfill.counts import Counts, Histogram, Span, UnknownFound, UnknownTask
from backfill.errors import InvalidJobError
from backfill.storage.arrays import number_array, text_array
from backfill.storage.connection import Connection
from backfill.storage.counters import FOLD_BATCH, FOLDS, KEPT_DAYS, MinuteCounts, counts_json

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

_LOOKED_AT: Final = 10_000
_DUE_SECONDS: Final = 2.0
"""Other programs' workers look for jobs every 2 seconds: what is due for less may be about to be taken."""
_NAMED: Final = 11
_ALWAYS: Final = "-infinity"


class CounterVerbs(ClientLife):
    """The verbs for counters."""

    async def counters(
        self,
        *,
        task: str | None = None,
        worker: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        by: Span | None = None,
        by_worker: bool = False,
        connection: Connection | None = None,
    ) -> list[Counts]:
        """How attempts ended, by task and, where it is asked for, by time and worker; oldest first.

        Workers write their counts every 5 seconds. What is older than 2 days is there by the hour, and after 60 days by the
        day and without its workers: `Counts.span` says so.

        Args:
            task: of this task only, 1 to 128 characters.
            worker: of this worker only.
            since: spans that begin at this time or later; aware.
            until: spans that begin before this time; aware.
            by: one `Counts` a minute, hour or day, in UTC; one for all the time if not given.
            by_worker: one `Counts` a worker.
            connection: a psycopg connection to read on; else one of the client's.

        Raises:
            InvalidJobError: a value out of range.
        """
        for name, value, limit in (("task", task, IDENTIFIER_LIMIT), ("worker", worker, KEY_LIMIT)):
            if value is not None:
                check_text(name, value, limit)
        check_time("since", since)
        check_time("until", until)
        if by is not None and by not in get_args(Span):
            raise InvalidJobError("by", by, f"one of {', '.join(get_args(Span))}")
        apart = by_worker or worker is not None
        parameters = (task, worker, moment(since), moment(until), by, str(apart).lower())
        async with self._connection(connection) as chosen:
            found = await run(chosen, "read_counters", self._schema, parameters)
        return [_counts(found, row) for row in range(found.ntuples)]

    async def fold_counters(self) -> int:
        """Fold minutes that are over 2 days old to hours, hours over 60 days to days, and delete days after 2 years.

        Workers do this at their start and hourly; any number may at once.

        Returns:
            How many rows were folded or deleted.
        """
        batch = str(FOLD_BATCH)
        folds: list[tuple[str, Parameters]] = [
            ("fold_counters", (span, coarser, str(by_worker).lower(), str(days), batch))
            for span, coarser, by_worker, days in FOLDS
        ]
        count = 0
        for statement, parameters in [*folds, ("forget_counters", (str(KEPT_DAYS), batch))]:
            taken = FOLD_BATCH
            while taken == FOLD_BATCH:
                async with self._connection(None) as chosen:
                    taken = whole(await run(chosen, statement, self._schema, parameters), 0, 0)
                count += taken
        return count

    async def write_counters(self, worker: str, counts: Sequence[MinuteCounts]) -> float:
        """Write a worker's counts of its minutes as they stand: what workers do every 5 seconds.

        Args:
            worker: the worker's id.
            counts: each of its minutes since the last call, whole, and not what was added to it.

        Returns:
            The database's time, in Unix seconds.
        """
        async with self._connection(None) as chosen:
            found = await run(chosen, "write_counters", self._schema, (worker, counts_json(counts)))
        return whole(found, 0, 0) / 1_000_000

    async def unknown_tasks(self, worker: str) -> list[UnknownTask]:
        """Tasks with due jobs that no live worker of ours knows, eleven at most, those with most jobs first.

        Args:
            worker: who asks; only the live worker with the smallest id gets an answer, so that one speaks for all; those whose
                protocol is older than its own do not count.
        """
        return (await self.find_unknown_tasks(worker, {})).tasks

    async def find_unknown_tasks(self, worker: str, floors: Mapping[int, int]) -> UnknownFound:
        """Look for such tasks from floors on; what workers do every half minute.

        Args:
            worker: who asks, as for `unknown_tasks`.
            floors: for each priority of which something is known, the run_at at which the look begins, in Unix microseconds;
                other priorities are looked at whole.
        """
        levels = [(level, level, floors[level]) for level in sorted(floors)]
        edges = [-32_769, *sorted(floors), 32_768]
        gaps = [(low + 1, high - 1, None) for low, high in pairwise(edges) if high - low > 1]
        spans = sorted([*levels, *gaps], key=lambda span: span[0])
        parameters = (
            number_array([low for low, _, _ in spans]),
            number_array([high for _, high, _ in spans]),
            text_array([_ALWAYS if floor is None else _time_of(floor).isoformat() for _, _, floor in spans]),
            worker, str(_LOOKED_AT), str(_DUE_SECONDS), str(_NAMED),
        )  # fmt: skip
        async with self._connection(None) as chosen:
            found = await run(chosen, "find_unknown_tasks", self._schema, parameters)
        tasks = [
            UnknownTask(name, whole(found, row, 1), time(found, row, 2), text(found, row, 3) == "t")
            for row in range(found.ntuples)
            if (name := text(found, row, 0)) is not None
        ]
        return UnknownFound(
            tasks, answered=text(found, 0, 4) == "t", whole=text(found, 0, 3) == "t",
            due_before=whole(found, 0, 5) - int(_DUE_SECONDS * 1_000_000),
            levels=orjson.loads(text(found, 0, 6) or "[]"), known=text(found, 0, 7),
        )  # fmt: skip


def _time_of(micros: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)


def _counts(found: PGresult, row: int) -> Counts:
    return Counts(
        task=text(found, row, 0) or "",
        worker=text(found, row, 1),
        started=cast("datetime", time(found, row, 2)),
        span=cast("Span", text(found, row, 3)),
        done=whole(found, row, 4),
        failed=whole(found, row, 5),
        retried=whole(found, row, 6),
        dead=whole(found, row, 7),
        snoozed=whole(found, row, 8),
        discarded=whole(found, row, 9),
        given_back=whole(found, row, 10),
        wait=_histogram(found, row, 11),
        run=_histogram(found, row, 13),
    )


def _histogram(found: PGresult, row: int, column: int) -> Histogram:
    """One whose seconds and buckets are two columns."""
    buckets = tuple(orjson.loads(text(found, row, column + 1) or "[]"))
    return Histogram(buckets, timedelta(seconds=float(text(found, row, column) or 0)))
