"""Two attempts of one job in one settlement: it was unlocked by force and claimed again by the same worker."""

from __future__ import annotations

import pytest

from backfill import BackfillClient
from backfill.storage.attempts import Attempt
from backfill.storage.connection import connect
from backfill.storage.settlements import Settlement, settle
from backfill.storage.wire import Wire
from backfill.worker.execution.endings import COMPLETED, GIVEN_BACK, CompletedWithResult, Ending, Failed, Snoozed

from reading import rows, value

JOBS = "graphile_worker._private_jobs"
ENDS = "graphile_worker.backfill_ends"
KEPT = 60.0
FINAL = Failed("no", final=True)
SETTLEMENTS: dict[str, list[tuple[Ending, float | None]]] = {
    "completed": [(COMPLETED, None)] * 2,
    "kept": [(CompletedWithResult(b"1"), KEPT)] * 2,
    "failed": [(Failed("no"), None)] * 2,
    "failed for good": [(FINAL, None)] * 2,
    "failed and kept": [(FINAL, KEPT)] * 2,
    "given back": [(GIVEN_BACK, None)] * 2,
    "snoozed": [(Snoozed(1.0), None)] * 2,
    "each its own": [(COMPLETED, None), (FINAL, KEPT)],
}


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("kind", SETTLEMENTS)
async def test_only_the_attempt_that_holds_the_job_is_written(dsn: str, kind: str, newest_first: bool) -> None:
    """The older one is told to be lost, and the job has one end, not two."""
    async with BackfillClient(dsn) as client, await connect(dsn) as connection:
        outcome = await client.enqueue("t", 1, job_key="k")
        two = []
        for _ in range(2):
            await rows(
                dsn,
                f"""update {JOBS} set attempts = attempts + 1, locked_by = 'w', locked_at = clock_timestamp()
                where id = %s returning id""",
                outcome.id,
            )
            job = await client.get_job(outcome)
            assert job is not None
            two.append(Attempt(job))
        older, newer = two
        if newest_first:
            two.reverse()
        ends = zip(two, SETTLEMENTS[kind], strict=True)
        settlement = Settlement(ending.end(attempt, keep) for attempt, (ending, keep) in ends)
        lost = await settle(Wire(connection), settlement, schema="graphile_worker", worker="w")
    assert lost == {older}
    assert newer.locked_at > older.locked_at
    fails = SETTLEMENTS[kind][two.index(newer)][0]
    assert (newer.last, older.last) == (fails.final if isinstance(fails, Failed) else None, None)
    last = "good" if kind == "each its own" and newest_first else kind
    assert await rows(dsn, f"select attempts from {JOBS} where locked_at is not null") == []
    written = await rows(dsn, f"select attempts, started_at = (select max(started_at) from {ENDS}) from {ENDS}")
    assert written == ([(2, True)] if last in {"kept", "failed and kept", "each its own"} else [])
    dead = await value(dsn, "select count(*) from graphile_worker.backfill_dlq")
    assert dead == int(last in {"failed for good", "failed and kept", "each its own"})
