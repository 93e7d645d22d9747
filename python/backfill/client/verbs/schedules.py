"""Statements about recurring items: what schedulers read, the one by which they enqueue, and what operators say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import orjson

from backfill.checks import IDENTIFIER_LIMIT, check_text, check_time
from backfill.client.verbs.asked import Steps, Verb
from backfill.controls import AUTHOR_LIMIT
from backfill.storage.arrays import text_array
from backfill.storage.results import Row, first, nothing, rows
from backfill.storage.schedules import (
    JobState,
    KnownSchedule,
    LastJob,
    LiveWorker,
    Look,
    NewRun,
    RestingSchedule,
    RunDone,
    RunOutcome,
    SaidSchedule,
)

if TYPE_CHECKING:
    from backfill.storage.results import Result

_NO_TIME: Final = datetime(1, 1, 1, tzinfo=UTC)


def read_schedules() -> Verb[Look]:
    """Read the database's clock, which workers live, and whether operators said something new.

    Every time by which a scheduler decides comes from here.
    """
    return Verb("read_schedules", (), _look)


def find_crontabs(digests: Iterable[str]) -> Verb[dict[str, dict[str, str]]]:
    """Read what code declares: the lines of items by their identifiers, by digest; unknown digests are left out."""
    return Verb(
        "find_crontabs",
        (text_array(digests),),
        lambda found: {row.word("digest"): _lines(row.word("items")) for row in rows(found)},
    )


def find_resting_schedules() -> Verb[list[RestingSchedule]]:
    """List the items that code declared within 30 days and that no live worker declares, by their identifiers."""
    return Verb("find_resting_schedules", (), lambda found: [_resting(row) for row in rows(found)])


def find_said_schedules(identifiers: Iterable[str] | None = None) -> Verb[list[SaidSchedule]]:
    """List what operators said of some items, or of all, by their identifiers."""
    chosen = None if identifiers is None else text_array(identifiers)
    return Verb("find_said_schedules", (chosen,), lambda found: [_said(row) for row in rows(found)])


def find_known_schedules(identifiers: Iterable[str]) -> Verb[dict[str, KnownSchedule]]:
    """Read since when items are known, and their last runs; items that nobody registered are left out."""
    return Verb(
        "find_known_schedules",
        (text_array(identifiers),),
        lambda found: {row.word("identifier"): _known(row) for row in rows(found)},
    )


def register_schedules(identifiers: Iterable[str], known_since: datetime) -> Steps[dict[str, KnownSchedule]]:
    """Register the items that are not known yet; the answer is the rows of all of them.

    A scheduler of Node that registers the same items in another order must never wait for us in a ring. So they are
    registered together only where nobody else registers one of them; else each in a transaction of its own.

    Args:
        identifiers: the items' identifiers.
        known_since: the database's time, as the last look gave it.
    """
    return _register(list(identifiers), known_since)


def add_runs(runs: Sequence[NewRun]) -> Verb[list[RunDone]]:
    """Add the jobs of runs that nobody else has done, and advance the items' last runs, in one statement.

    Runs of an item are done in their order. The statement never waits for what another scheduler does: such items are
    BUSY. A pause that has returned is never followed by a run.

    Args:
        runs: the runs, in any order, a run of an item only once.

    Returns:
        What became of each run, in the order in which they were given.
    """
    given = tuple(runs)
    text = orjson.dumps([_run_object(run) for run in given])
    return Verb(
        "add_runs", (text,), lambda found: [_done(run, row) for run, row in zip(given, rows(found), strict=True)]
    )


def find_schedule_jobs(identifiers: Iterable[str]) -> Verb[dict[str, LastJob]]:
    """Read the last job of each item, and what became of it; items that never had one are left out."""
    return Verb(
        "find_schedule_jobs",
        (text_array(identifiers),),
        lambda found: {row.word("identifier"): _last_job(row) for row in rows(found)},
    )


def add_schedule(identifier: str, line: str, by: str | None, at: datetime | None = None) -> Verb[SaidSchedule | None]:
    """Add an item; the answer is None if operators added or changed one with this identifier already.

    Whether code declares an item with this identifier is for the caller to see. A removal and a pause that stand for
    the identifier end.

    Args:
        identifier: the item's identifier.
        line: the item as a line of a crontab.
        by: who says it; the database role if None.
        at: the time from which on it runs; the database's clock if None.
    """
    return _say(identifier, "add", line, by, at)


def change_schedule(
    identifier: str, line: str, by: str | None, at: datetime | None = None
) -> Verb[SaidSchedule | None]:
    """Change an item, one of the code's or one that operators added; a pause of it stays.

    Runs from before the change are not made up for. The answer is None if the item was removed.
    """
    return _say(identifier, "change", line, by, at)


def pause_schedule(identifier: str, by: str | None, at: datetime | None = None) -> Verb[SaidSchedule | None]:
    """Pause an item: once this has returned, no run of it is added.

    The time and the author of a pause that stands already stay. The answer is None if the item was removed.
    """
    return _say(identifier, "pause", None, by, at)


def resume_schedule(identifier: str, by: str | None, at: datetime | None = None) -> Verb[SaidSchedule | None]:
    """End an item's pause; the runs meanwhile are not made up for. The answer is None if it was not paused."""
    return _say(identifier, "resume", None, by, at)


def remove_schedule(identifier: str, by: str | None, at: datetime | None = None) -> Verb[SaidSchedule | None]:
    """Remove an item, although code may declare it. The answer is None if it was removed already.

    An item that code declares, or has declared within 30 days, stays removed until it is added again or reset. What was
    said of an item that only operators added is forgotten: its row says nothing any more.
    """
    return _say(identifier, "remove", None, by, at)


def reset_schedule(identifier: str, by: str | None = None, at: datetime | None = None) -> Verb[SaidSchedule | None]:
    """Forget all that operators said of an item; the answer is what stood, None if that was nothing.

    Runs from before this are not made up for.
    """
    return _say(identifier, "reset", None, by, at)


def wait_for_schedule(identifier: str) -> Verb[SaidSchedule | None]:
    """Wait until no other transaction says anything, and let none begin to before this one ends; the answer is None.

    What stands of the item may be read then, and be changed by what was read.
    """
    return _say(identifier, "wait", None, None, None)


def trigger_schedule(run: NewRun) -> Verb[int]:
    """Add a job for an item now, apart from its runs; the answer is the job's id.

    The job is not the one that `overlap=skip` looks at, and the item's last run stays as it is. What operators said of
    the item does not matter: one that is paused can be triggered. The item must be registered.

    Args:
        run: what the job is; its `run`, `revision`, `overlap_skip` and `refused` are not looked at.
    """
    parameters = (
        run.identifier,
        run.task,
        run.payload.decode(),
        run.queue,
        run.run_at.isoformat(),
        None if run.max_attempts is None else str(run.max_attempts),
        run.job_key,
        None if run.priority is None else str(run.priority),
        text_array(run.flags) if run.flags else None,
        None if run.job_key_mode is None else str(run.job_key_mode),
    )
    return Verb("trigger_schedule", parameters, lambda found: first(found).whole("job_id"))


def sweep_crontabs() -> Verb[int]:
    """Delete what code declared, where no worker has named it for 30 days; the answer is how many rows."""
    return Verb("sweep_crontabs", (), lambda found: first(found).whole("deleted"))


def _register(identifiers: list[str], known_since: datetime) -> Steps[dict[str, KnownSchedule]]:
    known = yield from find_known_schedules(identifiers)
    missing = [name for name in identifiers if name not in known]
    if not missing:
        return known
    since = known_since.isoformat()
    yield from Verb("register_schedules", (text_array(missing), since), nothing)
    known = yield from find_known_schedules(identifiers)
    missing = [name for name in identifiers if name not in known]
    if not missing:
        return known
    for name in missing:
        yield from Verb("register_schedule", (name, since), nothing)
    return (yield from find_known_schedules(identifiers))


def _say(
    identifier: str, doing: str, line: str | None, by: str | None, at: datetime | None
) -> Verb[SaidSchedule | None]:
    check_text("identifier", identifier, IDENTIFIER_LIMIT)
    if by is not None:
        check_text("by", by, AUTHOR_LIMIT)
    if at is not None:
        check_time("at", at)
    parameters = (identifier, doing, line, by, None if at is None else at.isoformat())
    return Verb("say_schedule", parameters, lambda found: next((_said(row) for row in rows(found)), None))


def _run_object(run: NewRun) -> dict[str, object]:
    return {
        "identifier": run.identifier,
        "run": run.run.isoformat(),
        "revision": run.revision,
        "overlap_skip": run.overlap_skip,
        "task": None if run.refused else run.task,
        "payload": orjson.Fragment(run.payload),
        "run_at": run.run_at.isoformat(),
        "queue": run.queue,
        "max_attempts": run.max_attempts,
        "priority": run.priority,
        "job_key": run.job_key,
        "job_key_mode": run.job_key_mode,
        "flags": run.flags,
    }


def _lines(items: str) -> dict[str, str]:
    """The lines of items by their identifiers. What is no line is left out: a role may have written it in plain SQL."""
    read = orjson.loads(items)
    if not isinstance(read, dict):
        return {}
    return {identifier: line for identifier, line in read.items() if isinstance(line, str)}


def _look(found: Result) -> Look:
    row = first(found)
    workers = tuple(_worker(row) for row in rows(found) if row.raw("worker") is not None)
    return Look(_time(row, "clock"), row.word("said"), workers, is_awaited=row.flag("is_awaited"))


def _worker(row: Row) -> LiveWorker:
    return LiveWorker(
        id=row.word("worker"),
        started_at=_time(row, "started_at"),
        digest=row.text("crontab"),
        schedules=row.flag("is_scheduling"),
        alike=row.whole("alike"),
    )


def _resting(row: Row) -> RestingSchedule:
    return RestingSchedule(row.word("identifier"), row.word("line"), _time(row, "declared_at"))


def _said(row: Row) -> SaidSchedule:
    return SaidSchedule(
        identifier=row.word("identifier"),
        line=row.text("line"),
        is_added=row.flag("is_added"),
        paused_at=row.time("paused_at"),
        paused_by=row.text("paused_by"),
        removed_at=row.time("removed_at"),
        since=row.time("since"),
        said_by=row.word("said_by"),
        said_at=_time(row, "said_at"),
        revision=row.whole("revision"),
    )


def _known(row: Row) -> KnownSchedule:
    return KnownSchedule(row.word("identifier"), _time(row, "known_since"), row.time("last_execution"))


def _done(run: NewRun, row: Row) -> RunDone:
    return RunDone(run.identifier, run.run, RunOutcome(row.word("outcome")), row.number("job_id"))


def _last_job(row: Row) -> LastJob:
    how = row.text("how")
    ended = JobState.ENDED if how is not None else JobState.FAILED if row.flag("is_dead") else JobState.GONE
    return LastJob(
        identifier=row.word("identifier"),
        run=_time(row, "run_at"),
        job_id=row.whole("job_id"),
        added_at=_time(row, "added_at"),
        state=ended if (state := row.text("state")) is None else JobState(state),
        how=how,
        ended_at=row.time("ended_at"),
    )


def _time(row: Row, name: str) -> datetime:
    """A time that is always there; one that no datetime can hold, such as -infinity, counts as long ago."""
    return row.time(name) or _NO_TIME
