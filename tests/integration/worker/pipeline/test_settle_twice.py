"""Two attempts of one job in one settlement: it was unlocked by force and claimed again by the same worker."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from backfill import BackfillClient
from backfill.storage.attempts import Attempt, Failure, KeptEnd, Settlement, settle
from backfill.storage.connection import connect
from backfill.storage.wire import Wire

from reading import rows, value

JOBS = "graphile_worker._private_jobs"
ENDS = "graphile_worker.backfill_ends"
SETTLEMENTS: dict[str, Callable[[list[Attempt]], Settlement]] = {
    "completed": lambda two: Settlement(completed=two),
    "kept": lambda two: Settlement(kept=[KeptEnd(one, 60.0, result=b"1") for one in two]),
    "failed": lambda two: Settlement(failed=[Failure(one, "no") for one in two]),
    "failed for good": lambda two: Settlement(failed=[Failure(one, "no", final=True) for one in two]),
    "failed and kept": lambda two: Settlement(failed=[Failure(one, "no", final=True, keep=60.0) for one in two]),
    "given back": lambda two: Settlement(given_back=two),
    "snoozed": lambda two: Settlement(snoozed=[(one, 1.0) for one in two]),
    "each its own": lambda two: Settlement(completed=two[:1], failed=[Failure(two[1], "no", final=True, keep=60.0)]),
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
        lost = await settle(Wire(connection), SETTLEMENTS[kind](two), schema="graphile_worker", worker="w")
    assert lost == {older}
    assert newer.locked_at > older.locked_at
    last = "good" if kind == "each its own" and newest_first else kind
    assert await rows(dsn, f"select attempts from {JOBS} where locked_at is not null") == []
    ends = await rows(dsn, f"select attempts, started_at = (select max(started_at) from {ENDS}) from {ENDS}")
    assert ends == ([(2, True)] if last in {"kept", "failed and kept", "each its own"} else [])
    dead = await value(dsn, "select count(*) from graphile_worker.backfill_dlq")
    assert dead == int(last in {"failed for good", "failed and kept", "each its own"})
