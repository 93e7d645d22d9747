"""Any sequence of calls gives the same jobs on our schema as on the one that Graphile Worker itself has made."""

from __future__ import annotations

from typing import Any

import psycopg
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg.types.json import Json

from plugins.plain import Plain
from strategies import plain_calls

# What a worker does with a job.
WORK = {
    "claim": """
        update graphile_worker._private_jobs
        set attempts = attempts + 1, locked_by = %s, locked_at = now() - %s::interval
        where id = %s and attempts < max_attempts and locked_at is null""",
    "fail": """
        update graphile_worker._private_jobs
        set locked_by = null, locked_at = null, last_error = 'failed', run_at = '2034-04-04T04:04:04+00:00'
        where id = %s and locked_at is not null""",
    "finish": "delete from graphile_worker._private_jobs where id = %s and locked_at is not null",
}
DIFFERENT = {"id", "task_id", "job_queue_id", "run_at", "created_at", "updated_at", "locked_at"}
NAMES = """
select 'task' as kind, identifier as name from graphile_worker._private_tasks
union all select 'queue', queue_name from graphile_worker._private_job_queues order by 1, 2
"""
TIMES = """
select id, case when run_at between '2020-01-01' and '2033-01-01' then 'now' else run_at::text end as run_at,
       updated_at::text as updated_at, locked_at < now() - interval '4 hours' as is_old
from graphile_worker._private_jobs
"""


class Side:
    """One of the two databases, with its jobs in the order in which they came: ids differ, places do not."""

    def __init__(self, plain: Plain) -> None:
        self.plain = plain
        self._ids: list[int] = []
        self._seen: dict[int, str] = {}
        self._number = 0
        plain.clear()

    def do(self, call: tuple[Any, ...]) -> Any:
        """Make a call and tell all that can be seen of it: its rows or the code of its error, the jobs, the names."""
        self.plain.rows("savepoint before")
        try:
            answer: Any = self._answer(*call)
        except psycopg.Error as error:
            # Which of two faults in one call is found first goes by the order in which rows are written.
            answer = "refused" if error.sqlstate in {"21000", "23514"} else error.sqlstate
            self.plain.rows("rollback to savepoint before")
        return answer, self._jobs(), self.plain.rows(NAMES)

    def _answer(self, verb: str, *arguments: Any) -> Any:
        match verb:
            case "add_job":
                rows = self.plain.call(verb, **self._spec(arguments[0]), job_key_mode=arguments[1])
            case "add_jobs":
                rows = self.plain.add_jobs(*map(self._spec, arguments[0]), preserve=arguments[1])
            case "claim" | "fail" | "finish":
                for id_ in self._chosen([arguments[0]]):
                    self.plain.rows(WORK[verb], *arguments[1:], id_)
                return None
            case "remove_job":
                rows = self.plain.call(verb, *arguments)
            case "force_unlock_workers":
                self.plain.rows("select graphile_worker.force_unlock_workers(%s::text[])", *arguments)
                return None
            case "reschedule_jobs":
                rows = self.plain.call(verb, self._chosen(arguments[0]), **arguments[1])
            case _:
                rows = self.plain.call(verb, self._chosen(arguments[0]), *arguments[1:])
        self._note(rows)
        places = [self._ids.index(row["id"]) for row in rows]
        plain = [{name: value for name, value in row.items() if name not in DIFFERENT} for row in rows]
        return sorted(zip(places, plain, strict=True), key=lambda pair: pair[0])

    def _chosen(self, places: list[int]) -> list[int]:
        return [self._ids[place] for place in places if place < len(self._ids)]

    def _spec(self, spec: dict[str, Any]) -> dict[str, Any]:
        """The spec with a payload that no other spec has, so that new rows can be told apart whatever their order."""
        self._number += 1
        number = self._number
        kinds: dict[str, Any] = {"array": [number], "object": {"n": number}, "text": f"text {number}"}
        return spec | {"payload": Json(kinds[spec["payload"]])}

    def _note(self, rows: list[dict[str, Any]]) -> None:
        new = [row for row in rows if row["id"] not in self._ids]
        self._ids += [row["id"] for row in sorted(new, key=lambda row: str(row["payload"]))]

    def _jobs(self) -> list[Any]:
        """Every job by its place; times by what they mean."""
        found: list[Any] = []
        jobs = self.plain.jobs()
        self._note(jobs)
        times = {row["id"]: row for row in self.plain.rows(TIMES)}
        for job in sorted(jobs, key=lambda job: self._ids.index(job["id"])):
            time = times[job["id"]]
            moved = self._seen.get(job["id"]) not in {None, time["updated_at"]}
            self._seen[job["id"]] = time["updated_at"]
            plain = {name: value for name, value in job.items() if name not in DIFFERENT}
            found.append((self._ids.index(job["id"]), plain, time["run_at"], time["is_old"], moved))
        return found


@given(calls=st.lists(plain_calls, min_size=1, max_size=14))
def test_any_calls_do_the_same(our_database: Plain, their_database: Plain, calls: list[tuple[Any, ...]]) -> None:
    """After each call: the same answer or error, the same jobs, names and notifications."""
    ours, theirs = Side(our_database), Side(their_database)
    for number, call in enumerate(calls):
        seen = [_committed(side, call) for side in (ours, theirs)]
        assert (number, seen[0]) == (number, seen[1]), call


def _committed(side: Side, call: tuple[Any, ...]) -> Any:
    side.plain.rows("begin")
    seen = side.do(call)
    side.plain.rows("commit")
    return seen, [note["count"] for note in side.plain.told()]


@settings(max_examples=settings.default.max_examples // 4)
@given(calls=st.lists(plain_calls, min_size=1, max_size=8))
def test_any_calls_of_one_transaction_do_the_same(
    our_database: Plain, their_database: Plain, calls: list[tuple[Any, ...]]
) -> None:
    """Within one transaction, too, where now() stands still and each call sees what the ones before it did."""
    seen = []
    for side in (Side(our_database), Side(their_database)):
        side.plain.rows("begin")
        try:
            seen.append([side.do(call) for call in calls])
        finally:
            side.plain.rows("rollback")
    assert seen[0] == seen[1]
