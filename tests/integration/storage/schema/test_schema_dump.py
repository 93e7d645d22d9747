"""The schema that migrations make is the one that is kept as text, and the text tells each kind of difference."""

from __future__ import annotations

import difflib
from typing import LiteralString

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from contract.dump import KEPT, dump

from plugins.roles import NewRole

CHANGES: dict[LiteralString, str] = {
    "alter table graphile_worker.backfill_dlq alter column notes type varchar(9)": "column notes character varying(9)",
    "alter table graphile_worker.backfill_dlq alter column notes set default 'x'": "notes text default 'x'::text",
    "alter table graphile_worker.backfill_dlq alter column notes set not null": "column notes text not null",
    "alter table graphile_worker.backfill_dlq add constraint c check (id > 0)": "constraint c CHECK ((id > 0))",
    "alter table graphile_worker.backfill_dlq set (fillfactor = 50)": "row level security, with fillfactor=50",
    "alter table graphile_worker.backfill_dlq disable row level security": "",
    "create index i on graphile_worker.backfill_dlq (notes)": "graphile_worker.backfill_dlq USING btree (notes)",
    "drop index graphile_worker.backfill_dlq_newest": "",
    "alter function graphile_worker.add_jobs security definer": "volatile parallel unsafe security definer",
    "alter function graphile_worker.add_jobs stable": "stable parallel unsafe security invoker",
    "alter function graphile_worker.add_jobs set search_path = pg_temp": "set search_path=pg_temp",
    "create or replace function graphile_worker.backfill_add(one bigint[], other bigint[]) returns bigint[] "
    "language sql immutable parallel safe as 'select one'": "text ",
    "create trigger t before delete on graphile_worker.backfill_dlq for each row "
    "execute function suppress_redundant_updates_trigger()": "CREATE TRIGGER t BEFORE DELETE",
    "create or replace view graphile_worker.jobs as select jobs.*, 1 as one from graphile_worker.jobs limit 1": "",
    "create policy p on graphile_worker.backfill_locks for select using (false)": "policy p permissive for select",
    "grant delete on graphile_worker.backfill_locks to public": "granted to public: delete",
    "grant update (said) on graphile_worker.backfill_control to public": "granted to public: update of column said",
    "revoke execute on function graphile_worker.add_jobs from public": "",
    "create sequence graphile_worker.s increment by 2": "bigint from 1 by 2",
    "create type graphile_worker.e as enum ('a', 'b')": "values a, b",
    "comment on table graphile_worker.backfill_locks is 'locks'": "comment locks",
}


def _names(*dsns: str) -> dict[str, str]:
    return {
        str(conninfo_to_dict(dsn)["user"]): word
        for dsn, word in zip(dsns, ("a_producer", "a_worker", "a_operator"), strict=True)
    }


def test_the_schema_is_the_one_that_is_kept(dsn: str, role: NewRole) -> None:
    """What migrations and the printed grants make is what tests/contract/schema.txt says, on every PostgreSQL."""
    found = dump(dsn, _names(role("producer"), role("worker"), role("operator")))
    kept = KEPT.read_text(encoding="utf-8")
    lines = difflib.unified_diff(kept.splitlines(), found.splitlines(), "kept", "found", lineterm="", n=1)
    assert found == kept, "`nox -s schema` writes it anew:\n" + "\n".join(lines)


@pytest.mark.parametrize("change", CHANGES)
def test_each_kind_of_difference_is_told(dsn: str, change: LiteralString) -> None:
    """Whatever a migration may change of the schema changes the text."""
    before = dump(dsn, {})
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(change)
    after = dump(dsn, {})
    assert after != before
    lines = [line for line in difflib.ndiff(before.splitlines(), after.splitlines()) if line.startswith("+ ")]
    assert any(CHANGES[change] in line for line in lines) or not CHANGES[change], lines
