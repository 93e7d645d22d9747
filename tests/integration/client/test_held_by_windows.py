"""The verbs that change waiting jobs meet one that a worker's window holds: they wait, and then see what became of it.

A window holds its jobs by the locks of their rows alone, so they look as if they waited.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from backfill import BackfillClient, CancelCounts, CancelOutcome, CancelStatus, Job, JobFilter, JobState
from open_windows import JOBS, WAITERS, OpenWindow, open_window

from plugins.roles import NewRole
from plugins.waiting import Eventually
from reading import rows, value

pytestmark = pytest.mark.leaves_rows
WORKER = "backfill_w"
ENDS: dict[str, Callable[[OpenWindow], Awaitable[None]]] = {
    "completed": OpenWindow.complete,
    "claimed": OpenWindow.enter_rows,
    "let go": OpenWindow.let_go,
    "lost": OpenWindow.break_off,
}
WAITS_AGAIN = ("let go", "lost")
Verb = Callable[[int], Awaitable[Any]]


@pytest.fixture
async def client(dsn: str) -> AsyncIterator[BackfillClient]:
    """An open client."""
    async with BackfillClient(dsn) as one:
        yield one


async def _meet(dsn: str, job: int, verb: Verb, end: str, eventually: Eventually) -> Any:
    """What a verb gives that was called while a window held its job; the window ended in this way after that."""
    async with open_window(dsn, job, worker=WORKER) as window:
        answer = asyncio.ensure_future(verb(job))
        await eventually(lambda: value(dsn, WAITERS), bool)
        assert not answer.done()
        await ENDS[end](window)
        return await answer


def _id_of(found: Job | list[Job] | None) -> int | None:
    """The id of the only job that a verb gave; None where it gave none."""
    if isinstance(found, list):
        assert len(found) <= 1
        found = found[0] if found else None
    return None if found is None else found.id


@pytest.mark.parametrize("end", ENDS)
async def test_a_cancel_that_waited_looks_at_the_row_as_it_is_now(
    dsn: str, client: BackfillClient, eventually: Eventually, end: str
) -> None:
    """A job that has completed is not found, one that runs on is cancelled at its worker, one that waits is deleted."""
    one, many, waiting = [(await client.enqueue("t", number)).id for number in range(3)]
    cancelled = await _meet(dsn, one, lambda job: client.cancel(job, reason="why"), end, eventually)
    counts = await _meet(dsn, many, lambda job: client.cancel_jobs(JobFilter(ids=[job])), end, eventually)
    only = JobFilter(ids=[waiting], state=JobState.WAITING)
    unbegun = await _meet(dsn, waiting, lambda _: client.cancel_jobs(only), end, eventually)
    if end == "completed":
        assert cancelled == CancelOutcome(one, CancelStatus.NOT_FOUND)
        assert counts == unbegun == CancelCounts()
    elif end == "claimed":
        assert cancelled == CancelOutcome(one, CancelStatus.REQUESTED, WORKER, "why")
        assert counts == CancelCounts(requested=1)
        assert unbegun == CancelCounts()  # it does not wait any more
        flags = await rows(dsn, f"select flags ? 'backfill.cancel' from {JOBS} order by id")
        assert flags == [(True,), (True,), (None,)]
    else:
        assert cancelled == CancelOutcome(one, CancelStatus.REMOVED, None, "why")
        assert counts == unbegun == CancelCounts(removed=1)
    assert await value(dsn, f"select count(*) from {JOBS}") == (3 if end == "claimed" else 0)


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("duty", ["owner", "producer"])
async def test_verbs_change_only_a_job_that_waits_when_the_window_has_ended(
    dsn: str, role: NewRole, eventually: Eventually, end: str, duty: str
) -> None:
    """They neither fail nor say that they changed a job that a worker runs or has completed."""
    given = dsn if duty == "owner" else role("producer")
    async with BackfillClient(given) as client:
        verbs: list[Verb] = [
            lambda job: client.remove_job(id=job),
            lambda job: client.reschedule_jobs([job], delay=timedelta(hours=1), priority=7),
        ]
        if duty == "owner":
            verbs += [lambda job: client.complete_jobs([job]), lambda job: client.fail_jobs([job], "why")]
        for verb in verbs:
            job = (await client.enqueue("t", 1)).id
            found = await _meet(dsn, job, verb, end, eventually)
            assert _id_of(found) == (job if end in WAITS_AGAIN else None)
            left = await rows(dsn, f"select locked_by, attempts, priority from {JOBS} where id = %s", job)
            if end == "claimed":
                assert left == [(WORKER, 1, 0)]
            elif end == "completed":
                assert left == []


@pytest.mark.parametrize("end", ["claimed", "let go", "lost"])
async def test_keys_find_a_job_that_a_window_claims(
    dsn: str, client: BackfillClient, eventually: Eventually, end: str
) -> None:
    """A job with a key does not run within a window, but its look may hold it for a moment before it is claimed."""
    removed = (await client.enqueue("t", 1, job_key="removed")).id
    gone = await _meet(dsn, removed, lambda _: client.remove_job("removed"), end, eventually)
    assert _id_of(gone) == removed
    assert gone.locked_by == (WORKER if end == "claimed" else None)
    replaced = (await client.enqueue("t", 1, job_key="replaced")).id
    newer = await _meet(dsn, replaced, lambda _: client.enqueue("t", 2, job_key="replaced"), end, eventually)
    assert (newer.id != replaced) == (end == "claimed")
    left = await rows(dsn, f"select id, key, locked_by, attempts, max_attempts from {JOBS} order by id")
    if end == "claimed":
        held = [(job, None, WORKER, 8, 8) for job in (removed, replaced)]
        assert left == [*held, (newer.id, "replaced", None, 0, 8)]
    else:
        assert left == [(replaced, "replaced", None, 0, 8)]


@pytest.mark.parametrize("end", ENDS)
async def test_many_jobs_are_cancelled_though_windows_hold_some(
    dsn: str, client: BackfillClient, eventually: Eventually, end: str
) -> None:
    """The call waits for one window after the other, and has then seen each job once."""
    await client.enqueue_bulk("t", list(range(40)))
    jobs = [job for (job,) in await rows(dsn, f"select id from {JOBS} order by id")]
    first, second = jobs[3:9], jobs[20:26]
    async with open_window(dsn, *first, worker=WORKER) as early, open_window(dsn, *second, worker=WORKER) as late:
        answer = asyncio.ensure_future(client.cancel_jobs(JobFilter(tasks=["t"])))
        await eventually(lambda: value(dsn, WAITERS), bool)
        await ENDS[end](early)
        await eventually(lambda: value(dsn, WAITERS), bool)
        await ENDS["claimed"](late)
        counts = await answer
    removed = 34 if end in WAITS_AGAIN else 28
    assert counts == CancelCounts(removed=removed, requested=12 if end == "claimed" else 6)
