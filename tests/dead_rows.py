"""A queue whose tables are full of rows that were deleted under an old snapshot, for the tests that look at plans."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

from backfill.storage.claims import HIGHEST, LOWEST
from backfill.storage.ties import PAGES
from plans import RUNS, WORKER, Connection, Plan, nodes
from plans_reserving import DEAD_SAMPLES
from plans_windows import dead_samples, fronts

EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
DEAD = 200_000
"""How many rows the table of jobs has that nobody can see any more, and that cannot be vacuumed."""
FILL: LiteralString = f"""
insert into graphile_worker._private_tasks (identifier) values ('task1'), ('task2'), ('task3');
insert into graphile_worker._private_job_queues (queue_name) select 'dead' || n from generate_series(1, 60000) as n;
delete from graphile_worker._private_job_queues;
insert into graphile_worker._private_job_queues (queue_name) select 'queue' || n from generate_series(1, 1000) as n;
insert into graphile_worker._private_jobs (task_id, run_at, key)
select 1, now() - interval '1 hour' + n * interval '10 milliseconds', 'dead' || n
from generate_series(1, {DEAD * 3 // 10}) as n;
insert into graphile_worker._private_jobs (task_id, run_at, job_queue_id)
select 1, now() - interval '1 hour' + n * interval '10 milliseconds', queues.id
from generate_series(1, {DEAD // 10}) as n
join graphile_worker._private_job_queues as queues on queues.queue_name = 'queue' || 101 + n % 900;
update graphile_worker._private_jobs set locked_by = '{WORKER}', locked_at = now(), attempts = 1;
update graphile_worker._private_jobs set locked_by = null, locked_at = null, attempts = max_attempts where id % 2 = 0;
delete from graphile_worker._private_jobs;
insert into graphile_worker.backfill_dlq (task_identifier, payload, job_key, failure_reason, last_error)
select 'task1', '{{}}', case when n % 2 = 0 then 'dead' || n end, 'why', to_jsonb('no'::text)
from generate_series(1, 50000) as n;
delete from graphile_worker.backfill_dlq;
insert into graphile_worker.backfill_ends (
  job_id, task_identifier, how, attempts, max_attempts, priority, created_at, run_at, ended_at, expires_at)
select n, 'task1', 'completed', 1, 8, 0, now(), now(), now(), now() + interval '1 day'
from generate_series(1, 50000) as n;
delete from graphile_worker.backfill_ends;
insert into graphile_worker.backfill_attempts (job_id, attempt, how, message)
select n, 1, 'failed', 'no' from generate_series(1, 100000) as n;
insert into graphile_worker.backfill_attempts (job_id, attempt, how, message)
select 400000 + n % 80, 1, 'snoozed', 'no' from generate_series(1, 100000) as n;
delete from graphile_worker.backfill_attempts;
insert into graphile_worker.backfill_progress (job_id, attempt, done, checkpoint)
select n, 1, n, '{{"at": 1}}' from generate_series(1, 100000) as n;
delete from graphile_worker.backfill_progress;
insert into graphile_worker._private_known_crontabs (identifier, known_since)
select 'item' || n, now() from generate_series(1, 100000) as n;
delete from graphile_worker._private_known_crontabs;
insert into graphile_worker._private_known_crontabs (identifier, known_since, last_execution)
select 'item' || n, now() - interval '1 day', now() from generate_series(1, 40) as n;
insert into graphile_worker.backfill_schedule_jobs (identifier, run_at, job_id)
select 'item' || n, now(), n from generate_series(1, 100000) as n;
delete from graphile_worker.backfill_schedule_jobs;
insert into graphile_worker.backfill_schedule_jobs (identifier, run_at, job_id)
select 'item' || n, now(), 400000 + n from generate_series(1, 40) as n;
insert into graphile_worker.backfill_workers (id, host, pid, protocol, version, tasks)
values ('{WORKER}', 'host', 1, 99, '0', array['task1']);
insert into graphile_worker._private_jobs (task_id, run_at, key)
select 1 + n % 3, now(), 'key' || n from generate_series(1, 40) as n;
insert into graphile_worker._private_jobs (task_id, run_at, job_queue_id)
select 1 + n % 3, now(), queues.id from generate_series(1, 40) as n
join graphile_worker._private_job_queues as queues on queues.queue_name = 'queue' || n;
update graphile_worker._private_jobs set locked_by = '{WORKER}', locked_at = now(), attempts = 1 where id % 2 = 0;
update graphile_worker._private_job_queues set locked_by = '{WORKER}', locked_at = now()
where id in (select job_queue_id from graphile_worker._private_jobs where locked_at is not null);
insert into graphile_worker.backfill_dlq (id, task_identifier, payload, job_key, failure_reason, last_error, failed_at)
select 1000000 + n, 'task1', '{{}}', case when n % 2 = 0 then 'key' || n end, 'why', to_jsonb('no'::text),
  now() - interval '1 hour'
from generate_series(1, 40) as n;
"""
QUEUE_TABLES = (
    "_private_jobs",
    "_private_job_queues",
    "backfill_attempts",
    "backfill_progress",
    "backfill_reservations",
    "_private_known_crontabs",
    "backfill_schedule_jobs",
)
FILLED = (*QUEUE_TABLES, "backfill_ends_default", "backfill_dlq")
"""What has dead rows."""
COUNTED = (*QUEUE_TABLES, "backfill_ends", "backfill_ends_default", "backfill_workers")
STATISTICS = {"no rows": (0, 100), "never counted": (-1, 0), "ten million rows": (10_000_000, 200_000)}
"""What the catalogue says of the tables of the queue, and of their indexes: how many rows, and on how many pages."""


def believe(connection: Connection, statistics: str) -> None:
    """Have the catalogue say that."""
    count, pages = STATISTICS[statistics]
    connection.execute(
        """
        update pg_class as classes set reltuples = $1, relpages = $2, relallvisible = 0
        from unnest($3::text[]) as names (name)
        cross join to_regclass('graphile_worker.' || name) as queue_table
        where classes.oid = queue_table
          or classes.oid in (select indexrelid from pg_index where indrelid = queue_table)
        """,
        [count, pages, list(COUNTED)],
    )


GATHERED: list[Any] = [
    ["task1"] * 20, ["queue1"] * 20, ["{}"] * 20, [0] * 20, [None] * 20, [None] * 20, [5] * 20, [None] * 20,
    [f"gathered{number}" for number in range(20)], "replace", True, None,
]  # fmt: skip
"""Twenty jobs with keys that nobody has, for the statements that add jobs of several calls together."""

WAITING: LiteralString = """
insert into pg_temp.bulk_waiting
select 0, n, 0, now(), 8, 'task1', case when n % 2 = 0 then 'queue' || n end, null,
  case when n % 4 < 2 then 'key' else 'new' end || n, '{}'
from generate_series(1, 40) as n
"""
"""Forty jobs of a bulk call that wait, with keys that are there and keys that nobody has."""


def samples(connection: Connection) -> dict[str, Sequence[Any]]:
    """Parameters by statement, of the rows that are really there, so that each has as much to do as it says."""
    held = connection.execute(
        """
        select id, locked_at, job_queue_id, case when job_queue_id is not null then locked_at end, key
        from graphile_worker._private_jobs where locked_by = $1 order by id
        """,
        [WORKER],
    ).fetchall()
    row = connection.execute("select now(), (select max(id) from graphile_worker._private_job_queues)").fetchone()
    assert row is not None
    now, last = row
    ids, times, queues, queue_times, keys = (list(column) for column in zip(*held, strict=True))
    count = len(ids)
    nothing, no, numbers = [None] * count, [False] * count, [1] * count
    fences = [WORKER, ids, times, queues, queue_times]
    claims = [numbers, no]
    batches = [None if number % 2 else "{t,f,t}" for number in ids]
    records = [times, ["failed"] * count, ["app.No"] * count, ["no"] * count, ["at a:1"] * count, batches, keys]
    keeping = [[60.0] * count, times]
    since = [round((time - EPOCH) / timedelta(microseconds=1)) for time in times]
    yes, texts = [True] * count, ["1"] * count
    progress = [since, numbers, yes, [1.0] * count, [2.0] * count, texts, yes, texts]
    lows, highs = [LOWEST, 0, 1], [-1, 0, HIGHEST]
    floors = ["-infinity", str(now - timedelta(minutes=1)), "-infinity"]
    entries = list(range(1_000_001, 1_000_041))
    tie = [0, [now, now], "(1000,0)", f"({1000 + PAGES},0)"]
    return {
        "complete": fences,
        "complete_keeping": [*fences, *keeping, ["completed"] * count, nothing, ["1"] * count],
        "fail": [*fences, *claims, nothing, ["no"] * count, [number % 4 == 0 for number in ids], *records],
        "fail_keeping": [
            *fences,
            *claims,
            nothing,
            ["no"] * count,
            [number % 4 == 0 for number in ids],
            *records,
            [60.0] * count,
        ],
        "give_back": [*fences, *claims, nothing, [True] * len(ids), times, ["snoozed"] * count, nothing, no],
        "forget_attempts": [ids],
        "list_attempts": [ids[0]],
        "sweep_attempts": [0, 0, 1000],
        "write_progress": [WORKER, ids, *progress],
        "end_progress": [WORKER, ids, *progress],
        "forget_progress": [ids],
        "read_checkpoint": [ids[0]],
        "list_progress": [ids],
        "sweep_progress": [0, 1000],
        "end_cancelled": [*fences, *claims, *keeping, nothing],
        "find_cancelled": [WORKER, ids],
        "cancel_jobs": [ids, "no", None],
        "cancel_matching": [
            ids,
            ["^task1$"],
            None,
            False,
            None,
            None,
            None,
            None,
            None,
            None,
            None,
            None,
            0,
            500,
            "no",
        ],
        "take_shares": ["task1", None, 10, 0],
        "resolve_limits": [],
        "count_jobs": ["task1", ids],
        "pass_shares": [WORKER, ids, ids],
        "take_values": [WORKER, 100, [], "task1", "tenant", [1, 2, 3], None, 500, ["a"], [1]],
        "claim_taken": [WORKER],
        "add_runs": [json.dumps(RUNS)],
        "find_known_schedules": [[f"item{n}" for n in range(1, 41)]],
        "find_schedule_jobs": [[f"item{n}" for n in range(1, 41)]],
        "register_schedules": [["item1", "item2"], now],
        "say_schedule": ["item1", "pause", None, None, None],
        "trigger_schedule": ["item1", "task1", "{}", None, now, None, None, None, None, None],
        "free_held_queues": [],
        "list_held_queues": [],
        "lock_paused_queues": [list(range(1, count + 1))],
        "find_paused_queues": [],
        "free_resumed_queues": [],
        "find_controls": [],
        "count_knowing": ["task1"],
        "why_job": [ids[0]],
        "why_limit": ["task1", "", 20],
        "say": ["pause", "task:task1", "{}", None, ""],
        "unsay": ["pause", "task:task1"],
        "unsay_version": [1],
        "renew": [*fences, *claims],
        "forget_dead_letters": [WORKER, ids, times, keys, entries[:count], [now] * count, no],
        "find_levels": [lows, highs, floors],
        "find_waiting_tasks": [[1, 2], lows, highs, floors],
        "look_around": [["task1", "task2"], WORKER, 6.0, '{"host": "host"}'],
        "find_tasks": [["task1", "task2"]],
        "recover_jobs": [WORKER, ids, nothing, nothing, "died", no],
        "find_ends": [ids],
        "requeue_dead_letters": [entries, None, None, None, None, None],
        "delete_dead_letters": [entries],
        "delete_dead_letter_by_key": ["key2"],
        "find_locks": [WORKER],
        "find_held_locks": [WORKER, ids],
        "give_back_strays": [WORKER, ids[:2], [], None],
        "find_cut_off_jobs": [WORKER, 0, 100],
        "release_jobs": [14_400.0, 500, True],
        "find_live_workers": [[WORKER]],
        "find_abandoned": [20.0],
        "next_exhausted_job": [0],
        "sweep_dead_letters": [500, 0],
        "find_unknown_tasks": [lows, highs, floors, WORKER, 10_000, 2.0, 11],
        "look_at_queue": [WORKER, 10_000],
        "get_job": [ids[0]],
        "complete_jobs": [ids],
        "permanently_fail_jobs": [ids, "no"],
        "reschedule_jobs": [ids, None, None, 3, None, None, ["key3"]],
        **_producers(ids, now),
        "lock_near_queues": [100, [], lows, highs],
        "lock_beyond_queues": [100, [], lows, highs, floors, [0] * len(lows), list(range(last - 999, last - 979))],
        "lock_known_queues": [20, [], list(range(last - 999, last - 979))],
        "lock_far_queues": [100, []],
        "claim": ["nobody", 100, [], lows, highs, floors, 10, 2**24],
        "claim_tied": ["nobody", 100, [], lows, highs, floors, 10, 2**24, *tie],
        **fronts(lows, highs, floors, page=1000),
        **dead_samples(ids, times),
    }


def _producers(ids: list[int], now: datetime) -> dict[str, Sequence[Any]]:
    """The same for what producers run.

    Forty jobs that are new, that wait or that workers hold, in serial queues and not.
    """
    tasks, queues = ["task1"] * 40, [f"queue{n}" if n % 2 else None for n in range(1, 41)]
    columns = [tasks, queues, ["{}"] * 40, [0] * 40, [now] * 40, [5] * 40, [None] * 40]
    keys = [f"key{n}" if n % 2 else f"new{n}" for n in range(1, 41)]
    names = [f"queue{n}" for n in range(1, 21)] + [f"new{n}" for n in range(1, 21)]
    return {
        **DEAD_SAMPLES,
        "producer_add_job": ["task1", "{}", "queue1", None, None, 5, "key11", 0, None, "replace"],
        "gather_jobs": GATHERED,
        "producer_gather_jobs": GATHERED,
        "gather_waiting": [0, "replace"],
        "producer_gather_waiting": [0, "replace"],
        "producer_add_keyed": [*columns, keys, "unsafe_dedupe"],
        "producer_add_keyless": columns,
        "producer_keep_names": [["task1", "task2"], names[:20]],
        "producer_create_queues": [names],
        "producer_create_tasks": [["task1", "new"]],
        "producer_make_queues": [names],
        "producer_make_tasks": [["task1", "new"]],
        "producer_remove_job": [None, "key15"],
        "producer_reschedule_jobs": [[number + 1 for number in ids], None, None, 3, None, None, keys],
        "producer_see_ends": [ids],
        "producer_see_job": [ids[0]],
    }


def unbounded(plan: Plan) -> list[Plan]:
    """The nodes of a plan that read a table of the queue otherwise than by the condition of an index."""
    return [
        node
        for node in nodes(plan)
        if (node["Node Type"] == "Seq Scan" and node["Relation Name"] in QUEUE_TABLES)
        or ("Index Name" in node and "Index Cond" not in node)
    ]


def buffers(plan: Plan) -> int:
    """How many pages the dearest node of a plan has read, those below it included."""
    return max(node.get("Shared Hit Blocks", 0) + node.get("Shared Read Blocks", 0) for node in nodes(plan))
