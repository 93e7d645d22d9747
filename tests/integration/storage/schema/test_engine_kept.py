"""An upgrade of ours on a schema that the Rust engine has migrated since: what the engine's workers need stays."""

from __future__ import annotations

from typing import LiteralString

from backfill import BackfillClient
from contract.scripts import run_script

from places import TESTS
from reading import rows, value

REMOVE_JOB: LiteralString = """
    create or replace function graphile_worker.remove_job(job_key text) returns graphile_worker._private_jobs
    language sql strict as $$ select null::graphile_worker._private_jobs $$"""
SOURCE: LiteralString = """
    select prosrc from pg_proc where oid = 'graphile_worker.remove_job(text)'::regprocedure"""
FORGET: LiteralString = """
    delete from graphile_worker.backfill_migrations where id between 85 and 87;
    drop function graphile_worker.backfill_superseded_there(bigint[])"""


async def test_its_remove_job_stays(dsn: str) -> None:
    """The engine's notes which running jobs were removed: ours in its place would let them run again."""
    run_script(dsn, (TESTS / "contract" / "rust_engine.sql").read_text())
    await rows(dsn, REMOVE_JOB)
    before = await value(dsn, SOURCE)
    await rows(dsn, FORGET)
    await (await BackfillClient.connect(dsn, migrate=True)).close()
    assert await value(dsn, SOURCE) == before
