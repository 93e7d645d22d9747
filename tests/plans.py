"""Filled tables and sample parameters, for the tests that look at plans."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString, cast

import psycopg
from psycopg.types.json import Json, Jsonb

from backfill.storage.statements import load, render
from plans_reserving import CALLS as RESERVING_CALLS
from plans_reserving import SAMPLES as RESERVING
from plans_windows import HOT as WINDOWS_HOT
from plans_windows import SAMPLES as WINDOWS
from plans_windows import fronts

Plan = dict[str, Any]
Connection = psycopg.Connection[tuple[Any, ...]]

TASKS = 20_000
PARALLEL = 200_000
QUEUES = 60_000
SERIAL = 120_000
LOCKED = 500
WORKER = "backfill_filled"
_NOW = datetime.now(UTC)
_IDS = list(range(1, 101))
_TIMES = [_NOW] * 100
_NUMBERS = [1] * 100
_KEYED = [False] * 100
_RECORDS: list[Sequence[Any]] = [_TIMES, ["failed"] * 100, ["app.No"] * 100, ["no"] * 100, ["at a:1"] * 100]
_BATCHES = [None, "{t,f,t}"] * 50
_FENCES: list[Any] = [WORKER, _IDS, _TIMES, _NUMBERS, _TIMES]
_CLAIMS: list[Any] = [_NUMBERS, _KEYED]
_NOTHING = [None] * 100
_PROGRESS: list[Sequence[Any]] = [
    _IDS, [0] * 100, _NUMBERS, [True] * 100, [1.0] * 100, [2.0] * 100, ["note"] * 100, [True] * 100, ["1"] * 100,
]  # fmt: skip
_ITEMS = [f"item{n}" for n in range(1, 41)]
_GATHERED = [
    ["task1"], ["queue1"], ["{}"], [0], [None], [None], [5], [None], ["key11"], "replace", True, "200ms",
]  # fmt: skip
_ADDED: list[Any] = [
    "new", "host", 1, 3, Jsonb([]), ["task1"], "1", timedelta(seconds=20), Jsonb({}), None, "digest1",
    Jsonb({"item1": "* * * * * a"}), True,
]  # fmt: skip
RUNS = [
    {"identifier": item, "run": str(_NOW + timedelta(hours=1)), "revision": 0, "overlap_skip": True, "task": "task1",
     "payload": {}, "run_at": str(_NOW), "flags": []}
    for item in _ITEMS
]  # fmt: skip
"""A run of each of forty items, for `add_runs`."""
LOWS, HIGHS = [-32768, -1, 0, 1, 2, 3], [-2, -1, 0, 1, 2, 32767]
FLOORS = ["-infinity"] * len(LOWS)

FILL: LiteralString = f"""
insert into graphile_worker._private_tasks (identifier) select 'task' || n from generate_series(1, {TASKS}) as n;
insert into graphile_worker._private_job_queues (queue_name) select 'queue' || n from generate_series(1, {QUEUES}) as n;
insert into graphile_worker._private_jobs (task_id, run_at, key)
select 1 + n % 500, now() - interval '1 hour', 'key' || n from generate_series(1, {PARALLEL}) as n;
insert into graphile_worker._private_jobs (task_id, job_queue_id, priority, run_at)
select 1 + n % 500, 1 + n % {QUEUES}, n % 3, now() - n * interval '1 second' from generate_series(1, {SERIAL}) as n;
insert into graphile_worker._private_jobs (task_id, run_at)
select 1, now() + n * interval '1 second' from generate_series(1, 5000) as n;
update graphile_worker._private_jobs set locked_at = now(), locked_by = '{WORKER}', attempts = 1
where id <= {LOCKED};
update graphile_worker._private_jobs set attempts = max_attempts where id between 100001 and 100100;
insert into graphile_worker.backfill_dlq (task_identifier, payload, job_key, failure_reason, last_error, failed_at)
select 'task' || n % 50, '{{}}', case when n % 2 = 0 then 'key' || n end, 'why', to_jsonb('ValueError: ' || n),
  now() - n * interval '1 second'
from generate_series(1, 50000) as n;
insert into graphile_worker.backfill_ends (
  job_id, task_identifier, how, attempts, max_attempts, priority, created_at, run_at, ended_at, expires_at)
select n, 'task' || n % 50, 'completed', 1, 8, 0, now(), now(), now() - n * interval '1 second',
  now() + interval '1 day'
from generate_series(1, 50000) as n;
insert into graphile_worker.backfill_attempts (job_id, attempt, how, message)
select n % 20000, 1, 'failed', 'no' from generate_series(1, 100000) as n;
insert into graphile_worker.backfill_progress (job_id, attempt, done, checkpoint)
select n, 1, n, '{{"at": 1}}' from generate_series(51, 50050) as n;
insert into graphile_worker.backfill_counters
select span, now() - n * age, 'task' || m, 'worker', 1, 0, 0, 0, 0, 0, 0, 1, 1, '{{0,1}}', '{{1}}'
from generate_series(1, 3) as m, generate_series(1, 10000) as n,
  (values ('minute', interval '1 minute'), ('hour', '1 hour'), ('day', '1 day')) as spans (span, age);
insert into graphile_worker.backfill_workers (id, host, pid, protocol, version)
select 'worker' || n, 'host', n, 1, '0' from generate_series(1, 2000) as n;
insert into graphile_worker._private_known_crontabs (identifier, known_since, last_execution)
select 'item' || n, now() - interval '1 day', now() from generate_series(1, 5000) as n;
insert into graphile_worker.backfill_crontabs (digest, items)
select 'digest' || n, jsonb_build_object('item' || n, '* * * * * a') from generate_series(1, 2000) as n;
insert into graphile_worker.backfill_schedule_jobs (identifier, run_at, job_id)
select 'item' || n, now(), n from generate_series(1, 5000) as n;
insert into graphile_worker.backfill_limits (task, most, source) values ('task1', 10, 'operator');
insert into graphile_worker.backfill_limit_states (task, value, next_at, slots)
select 'task1', 'value' || n, now(), 10 from generate_series(1, 10000) as n;
insert into graphile_worker.backfill_shares (task, value, slot, turn, job_id, worker, attempt)
select 'task1', 'value' || n, slot, 1, n, 'worker' || n, 1
from generate_series(1, 10000) as n, generate_series(1, 5) as slot;
"""
WAITING: LiteralString = """
insert into pg_temp.bulk_waiting
select n / 2000, 10000000 + n, 0, now(), 8, 'task' || 1 + n % 500, 'queue' || 1 + n, null, 'key' || n, '{}', '1 day'
from generate_series(0, 19999) as n
"""
"""Rows of a bulk call that wait, in batches of 2,000, for the temporary table that each transaction makes."""
TABLES = (
    "_private_tasks",
    "_private_job_queues",
    "_private_jobs",
    "backfill_workers",
    "backfill_dlq",
    "backfill_ends",
    "backfill_ends_default",
    "backfill_counters",
    "backfill_attempts",
    "backfill_progress",
    "backfill_reservations",
    "backfill_limit_states",
    "backfill_shares",
    "_private_known_crontabs",
    "backfill_schedule_jobs",
)

SAMPLES: dict[str, Sequence[Any]] = {
    "beat": ["worker5", 0.1],
    "look_around": [["task1", "task2"], "worker5", 6.0, Jsonb({"host": "host"})],
    "give_up_worker": ["worker5", 1],
    "end_windows": [["backfill express worker5 0", "backfill express worker5 1"]],
    "give_up_gone": ["worker5", Jsonb({"host": "host"})],
    "find_places": [Jsonb({"host": "host", "pid": 7})],
    "show_place": ["worker5", Jsonb({"host": "host"})],
    "trip_breaker": ["task1", ["task1"], 10_000, 3600.0, 30.0, 3600.0],
    "end_trial": ["task1", 1, True],
    "show_lanes": ["worker5", Jsonb([{"name": "default", "concurrency": 10}])],
    "release_jobs": [14_400.0, 500, True],
    "force_unlock_workers": [[WORKER, "nobody"]],
    "find_live_workers": [["worker5", "nobody"]],
    "find_abandoned": [20.0],
    "find_unused_queues": [0, 5000, 500],
    "delete_unused_queues": [_IDS],
    "find_cut_off_jobs": [WORKER, 0, 100],
    "recover_jobs": [WORKER, _IDS, [None] * 100, [None] * 100, "died", _KEYED],
    "forget_worker": ["worker5"],
    "find_locks": [WORKER],
    "find_held_locks": [WORKER, _IDS],
    "bulk_begin": ["graphile_worker"],
    "complete": [WORKER, _IDS, _TIMES, _NUMBERS, _TIMES],
    "complete_keeping": [
        WORKER,
        _IDS,
        _TIMES,
        _NUMBERS,
        _TIMES,
        [60.0] * 100,
        _TIMES,
        ["completed"] * 100,
        [None] * 100,
        ["1"] * 100,
    ],
    "drop_end_partitions": [],
    "fail_keeping": [
        *_FENCES,
        *_CLAIMS,
        _NOTHING,
        ["no"] * 100,
        _KEYED,
        *_RECORDS,
        _BATCHES,
        ["key6"] * 100,
        [60.0] * 100,
    ],
    "find_ends": [_IDS],
    "list_ends": [None] * 9 + [50],
    "make_end_partitions": [[60.0]],
    "complete_jobs": [_IDS],
    "create_queues": [["queue1", "new"]],
    "create_tasks": [["task1", "new"]],
    "dedupe_jobs": [[1], [None], ["{}"], [0], [_NOW], [5], [None], ["key5"]],
    "cancel_jobs": [_IDS, "no", None],
    "cancel_matching": [
        None,
        ["^task1$"],
        ["^queue.*$"],
        False,
        "key",
        0,
        0,
        _NOW,
        _NOW,
        "waiting",
        ["f"],
        1.0,
        0,
        500,
        "no",
    ],
    "end_cancelled": [WORKER, _IDS, _TIMES, _NUMBERS, _TIMES, _NUMBERS, _KEYED, [60.0] * 100, _TIMES, [None] * 100],
    "find_cancelled": [WORKER, _IDS],
    "fail": [*_FENCES, *_CLAIMS, _NOTHING, ["no"] * 100, _KEYED, *_RECORDS, _BATCHES, ["key6"] * 100],
    "delete_dead_letter_by_key": ["key6"],
    "delete_dead_letters": [_IDS],
    "forget_dead_letters": [WORKER, _IDS, _TIMES, ["key6"] * 100, [None] * 100, _TIMES, _KEYED],
    "list_dead_letters": [None] * 12 + [50],
    "requeue_dead_letters": [_IDS, None, None, None, None, None],
    "find_dead_letters": [None] * 12 + [50],
    "next_exhausted_job": [0],
    "sweep_dead_letters": [500, 0],
    "find_unknown_tasks": [LOWS, HIGHS, FLOORS, "worker1", 10_000, 2.0, 11],
    "look_at_queue": ["worker1", 10_000],
    "find_oldest_snapshot": [],
    "fold_counters": ["minute", "hour", True, 2, 5000],
    "forget_counters": [730, 5000],
    "read_counters": ["task1", None, _NOW - timedelta(hours=1), None, "minute", False],
    "write_counters": ["worker", Jsonb([])],
    "find_tasks": [["task1", "task2"]],
    "add_worker": _ADDED,
    "read_schedules": [],
    "find_crontabs": [["digest1", "digest2"]],
    "find_resting_schedules": [],
    "find_said_schedules": [None],
    "find_known_schedules": [_ITEMS],
    "register_schedule": ["item1", _NOW],
    "register_schedules": [["item1", "new"], _NOW],
    "add_runs": [Json(RUNS)],
    "find_schedule_jobs": [_ITEMS],
    "say_schedule": ["item1", "pause", None, None, None],
    "trigger_schedule": ["item1", "task1", Json({}), None, _NOW, None, None, None, None, None],
    "sweep_crontabs": [],
    "insert_waiting": [1],
    "dedupe_waiting": [2],
    "gather_waiting": [3, "replace"],
    "producer_gather_waiting": [4, "replace"],
    "get_job": [5],
    "give_back": [*_FENCES, *_CLAIMS, _NOTHING, [True] * 100, _TIMES, ["snoozed"] * 100, _NOTHING, _KEYED],
    "forget_attempts": [_IDS],
    "list_attempts": [5],
    "sweep_attempts": [0, 0, 1000],
    "write_progress": [WORKER, *_PROGRESS],
    "end_progress": [WORKER, *_PROGRESS],
    "forget_progress": [_IDS],
    "read_checkpoint": [5],
    "list_progress": [_IDS],
    "sweep_progress": [0, 1000],
    "give_back_strays": [WORKER, _IDS, ["task1"], None],
    "free_held_queues": [],
    "list_held_queues": [],
    "find_controls": [],
    "count_knowing": ["task1"],
    "find_limits": [],
    "resolve_limits": [],
    "count_jobs": ["task1", _IDS],
    "take_shares": ["task1", None, 10, 0],
    "pass_shares": [WORKER, [1, 2], [3, 4]],
    "take_values": [WORKER, 100, [], "task1", "tenant", [1, 2], None, 500, ["a"], [1]],
    "claim_taken": [WORKER],
    "find_worker_controls": [],
    "find_paused_queues": [],
    "lock_paused_queues": [[1, 2, 3]],
    "free_resumed_queues": [],
    "why_job": [300_000],
    "why_limit": ["task1", "", 20],
    "say": ["pause", "task:task1", "{}", None, ""],
    "unsay": ["pause", "task:task1"],
    "unsay_version": [1],
    "hold_queues": [["queue1", "queue2"]],
    "hold_tasks": [["task1", "task2"]],
    "make_queues": [["queue1", "new"]],
    "make_tasks": [["task1", "new"]],
    "insert_job": ["task1", Json({}), None, None, 5, 0, None],
    "insert_serial_job": ["task1", Json({}), None, None, 5, 0, None, "queue1"],
    "name_job": [1, 1],
    "find_levels": [LOWS, HIGHS, FLOORS],
    "find_waiting_tasks": [[1, 2], LOWS, HIGHS, FLOORS],
    "permanently_fail_jobs": [_IDS, "no"],
    "remove_worker": ["worker5"],
    "renew": [WORKER, _IDS, _TIMES, _NUMBERS, _TIMES, _NUMBERS, _KEYED],
    "reschedule_jobs": [_IDS, None, None, 3, None, None, ["key5"]],
    **RESERVING,
    **WINDOWS,
    "producer_add_job": ["task1", Json({}), "queue1", None, None, 5, "key11", 0, None, "replace"],
    "producer_add_keyed": [["task1"], [None], ["{}"], [0], [_NOW], [5], [None], ["key13"], "unsafe_dedupe"],
    "producer_add_keyless": [["task1"], ["queue1"], ["{}"], [0], [_NOW], [5], [None]],
    "producer_keep_names": [["task1"], ["queue1"]],
    "producer_create_queues": [["queue1", "new"]],
    "producer_create_tasks": [["task1", "new"]],
    "producer_make_queues": [["queue1", "new"]],
    "producer_make_tasks": [["task1", "new"]],
    "producer_remove_job": [None, "key15"],
    "producer_reschedule_jobs": [_IDS, None, None, 3, None, None, ["key17"]],
    "producer_see_ends": [_IDS],
    "producer_see_job": [5],
    "add_job": ["task1", Json({}), "queue1", None, None, 5, "key7", 0, None, "replace"],
    "add_jobs": [["task1"], ["{}"], [None], [None], [5], ["key9"], [0], [None], False],
    "gather_jobs": _GATHERED,
    "producer_gather_jobs": _GATHERED,
}
FRONTS: dict[str, list[Any]] = {
    "lock_near_queues": [100, [], LOWS, HIGHS],
    "lock_beyond_queues": [100, [], LOWS, HIGHS, FLOORS, [0] * len(LOWS), [1, 2, 3]],
    "lock_known_queues": [100, [], [1, 2, 3]],
    "lock_far_queues": [100, []],
    "claim": ["nobody", 100, [], LOWS, HIGHS, FLOORS, 10, 2**24],
    "claim_tied": ["nobody", 100, [], LOWS, HIGHS, FLOORS, 10, 2**24, 0, [_NOW, _NOW], "(5,0)", "(1005,0)"],
    **fronts(LOWS, HIGHS, FLOORS),
}
"""The statements of claims, with what comes before their lane's own parameters."""
HOT = (
    "complete", "complete_keeping", "fail", "fail_keeping", "find_levels", "find_tasks", "forget_attempts",
    "find_waiting_tasks", "forget_dead_letters", "give_back", "end_cancelled", "end_progress", "forget_progress",
    "look_around", "renew", "pass_shares", "take_values", "claim_taken",
    *WINDOWS_HOT,
)  # fmt: skip
"""What a worker's hot connections run, apart from claims."""
CALLS = (
    "add_job", "add_jobs", "gather_jobs", "producer_gather_jobs", *RESERVING_CALLS, "remove_job", "complete_jobs",
    "permanently_fail_jobs", "reschedule_jobs", "producer_add_job", "producer_add_keyed", "producer_add_keyless",
    "producer_keep_names", "producer_create_queues", "producer_create_tasks", "producer_make_queues",
    "producer_make_tasks", "producer_remove_job", "producer_reschedule_jobs", "producer_see_ends", "producer_see_job",
    "list_progress", "lock_paused_queues", "free_resumed_queues", "free_held_queues", "list_held_queues", "cancel_jobs",
    "say", "unsay", "unsay_version", "take_shares", "resolve_limits", "count_jobs", "register_schedules", "add_runs",
    "say_schedule", "trigger_schedule", "force_unlock_workers",
)  # fmt: skip
"""Statements whose work is done inside a function, where no plan is shown."""
CARRIED = (
    "cancel_matching", "create_queues", "create_tasks", "dedupe_jobs", "delete_dead_letters", "find_controls",
    "find_dead_letters", "find_ends", "find_limits", "get_job", "hold_queues", "hold_tasks", "insert_job",
    "insert_serial_job", "list_attempts", "list_dead_letters", "list_ends", "make_queues", "make_tasks", "name_job",
    "read_checkpoint", "read_counters", "requeue_dead_letters", "why_job", "why_limit", "complete",
    "complete_keeping", "forget_dead_letters", "forget_attempts", "forget_progress", "find_held_locks",
)  # fmt: skip
"""What clients and handlers run on connections of other libraries, where the work is not done inside a function."""


PARTS = {
    "backfill_ends_default_job_id_idx": "backfill_ends_job",
    "backfill_ends_default_ended_at_job_id_idx": "backfill_ends_newest",
}
"""A partition's part of an index has a name that PostgreSQL makes."""


def explain(connection: Connection, name: str, parameters: Sequence[Any], text: str | None = None) -> Plan:
    """The plan of a statement as the server would run it now."""
    statement = cast("LiteralString", f"explain (format json) {text or render(name)}")
    row = connection.execute(statement, parameters).fetchone()
    assert row is not None
    found = row[0] if isinstance(row[0], list) else json.loads(row[0])
    return cast("Plan", found[0]["Plan"])


def explain_hot(connection: psycopg.Connection[Any], text: str, parameters: Sequence[Any], options: str = "") -> Plan:
    """The plan of a statement as a worker's hot connection runs it: one plan, whatever the parameters."""
    connection.execute(render("set_hot"), [False])
    connection.execute(cast("LiteralString", f"prepare hot as {text}"))
    cursor = psycopg.ClientCursor(connection)
    places = ", ".join(["%s"] * len(parameters))
    arguments = f"({places})" if parameters else ""
    try:
        row = cursor.execute(
            cast("LiteralString", f"explain ({options}format json) execute hot{arguments}"), parameters
        ).fetchone()
    finally:
        connection.execute("deallocate hot")
    assert row is not None
    found = row[0] if isinstance(row[0], list) else json.loads(row[0])
    return cast("Plan", found[0]["Plan"])


def nodes(plan: Plan) -> Iterator[Plan]:
    """A plan's nodes, itself first."""
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


def indexes(plan: Plan) -> set[str]:
    """The indexes that a plan uses, those that settle conflicts too."""
    found = {node["Index Name"] for node in nodes(plan) if "Index Name" in node}
    for node in nodes(plan):
        found.update(node.get("Conflict Arbiter Indexes", ()))
    return {PARTS.get(name, name) for name in found}


def whole_scans(plan: Plan) -> set[str]:
    """The tables of any size that a plan reads from end to end; the one of workers has a row a process."""
    return {
        node["Relation Name"]
        for node in nodes(plan)
        if node["Node Type"] == "Seq Scan"
        and node["Relation Name"] in TABLES
        and node["Relation Name"] != "backfill_workers"
    }


def header_indexes(name: str) -> set[str]:
    """The indexes that a statement's header names."""
    return set(load(name).indexes)
