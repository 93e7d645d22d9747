"""The hot path at work: claiming ahead, giving back, two lines, one commit a turn, wake-ups, what floors must show."""

from __future__ import annotations

import asyncio
import random
import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, LiteralString, cast

import psycopg
import pytest

from backfill import BackfillClient, JobSpec, NewJob, Queue, QueueConfig, TaskRegistry, WorkerConfig, WorkerRunner
from backfill.worker.execution.executor import Executor
from backfill.worker.lanes import full_looks
from backfill.worker.lanes.making import make_lanes
from backfill.worker.limits.sources import Sources
from backfill.worker.liveness.health import Pulse
from backfill.worker.liveness.lookout import Lookout
from backfill.worker.pipeline import claimer as claiming
from backfill.worker.pipeline import timetable
from backfill.worker.pipeline.claimer import Claimer

from plugins.periods import let_pass
from reading import value

NEVER = timedelta(hours=1)
LEFT: LiteralString = "select count(*) from graphile_worker._private_jobs"
WAITING: LiteralString = "select count(*) from graphile_worker._private_jobs where locked_at is null and attempts = 0"
LINES: LiteralString = """
select count(*) from pg_stat_activity
where datname = current_database() and application_name ~ '^backfill backfill_[0-9a-f]+$'
"""


class Runs:
    """Tasks that end at once, at the next turn of the loop, or when they are let go."""

    def __init__(self) -> None:
        self.tasks: TaskRegistry[None] = TaskRegistry()
        self.ended: list[Any] = []
        self.held: list[Any] = []
        self.release = asyncio.Event()
        self.tasks.task("quick")(self._quick)
        self.tasks.task("turn")(self._turn)
        self.tasks.task("hold")(self._hold)

    async def _quick(self, payload: Any) -> None:
        self.ended.append(payload)

    async def _turn(self, payload: Any) -> None:
        await asyncio.sleep(0)
        self.ended.append(payload)

    async def _hold(self, payload: Any) -> None:
        self.held.append(payload)
        await self.release.wait()
        self.ended.append(payload)


def parts(runner: WorkerRunner) -> Any:
    """What a running worker is made of."""
    assert runner._parts is not None
    return runner._parts.one


async def warm(client: BackfillClient, runs: Runs, eventually: Any, count: int = 200) -> None:
    """Have a worker see that attempts are short."""
    before = len(runs.ended)
    await client.enqueue_bulk(NewJob("turn", None) for _ in range(count))
    await eventually(lambda: len(runs.ended), lambda ended: ended == before + count)


async def test_nothing_is_claimed_ahead_where_jobs_are_long(dsn: str, eventually: Any) -> None:
    """A worker that has seen no short jobs claims what it has slots for and nothing more."""
    runs = Runs()
    async with BackfillClient(dsn) as client:
        await client.enqueue_bulk(NewJob("hold", number) for number in range(20))
        async with WorkerRunner(WorkerConfig(dsn, concurrency=4), runs.tasks):
            await eventually(lambda: len(runs.held), lambda held: held == 4)
            assert await value(dsn, WAITING) == 16
            runs.release.set()
            await eventually(lambda: value(dsn, LEFT), lambda left: left == 0)


async def test_what_was_claimed_ahead_goes_back_where_no_slot_falls_free(dsn: str, eventually: Any) -> None:
    """After short jobs come long ones.

    What waits for a slot goes back with attempts lowered, and is run without a poll.
    """
    runs = Runs()
    async with BackfillClient(dsn) as client:
        config = WorkerConfig(dsn, concurrency=4, poll_interval=NEVER)
        async with WorkerRunner(config, runs.tasks) as runner:
            await warm(client, runs, eventually)
            await client.enqueue_bulk(NewJob("hold", number) for number in range(30))
            await eventually(lambda: parts(runner).executor.claimed, lambda claimed: claimed > 204)
            await eventually(lambda: value(dsn, WAITING), lambda waiting: waiting == 26)
            runs.release.set()
            await eventually(lambda: value(dsn, LEFT), lambda left: left == 0, timeout=10)
    assert sorted(runs.ended[200:]) == list(range(30))


async def test_what_was_claimed_ahead_goes_back_at_a_shutdown(dsn: str, eventually: Any) -> None:
    """Jobs that have not begun go back as they were; those that run are waited for."""
    runs = Runs()
    async with BackfillClient(dsn) as client, WorkerRunner(WorkerConfig(dsn, concurrency=4), runs.tasks) as runner:
        await warm(client, runs, eventually)
        await client.enqueue_bulk(NewJob("hold", number) for number in range(30))
        await eventually(lambda: parts(runner).executor.claimed, lambda claimed: claimed > 204)
        assert len(parts(runner).executor.held) > 4
        asyncio.get_running_loop().call_later(0.05, runs.release.set)
    assert len(runs.ended) == 204
    assert await value(dsn, WAITING) == 26


async def test_two_lines_under_a_backlog_and_one_at_rest(
    dsn: str, monkeypatch: pytest.MonkeyPatch, eventually: Any
) -> None:
    """The second line is opened by a backlog, and hangs up when there has been none for a while."""
    monkeypatch.setattr("backfill.worker.pipeline.pump.IDLE_SECONDS", 0.2)
    runs = Runs()
    async with BackfillClient(dsn) as client, WorkerRunner(WorkerConfig(dsn, concurrency=50), runs.tasks):
        assert await value(dsn, LINES) == 1
        await client.enqueue_bulk(NewJob("quick", number) for number in range(20_000))
        await eventually(lambda: value(dsn, LINES), lambda lines: lines == 2)
        await eventually(lambda: len(runs.ended), lambda ended: ended == 20_000)
        await eventually(lambda: value(dsn, LINES), lambda lines: lines == 1)


async def test_settlement_and_claim_are_one_commit(dsn: str, eventually: Any) -> None:
    """5,000 jobs cost fewer than a commit for every 25 of them, listener, heartbeat and this test's looks included."""
    runs = Runs()
    commits: LiteralString = """
    select xact_commit from pg_stat_database, pg_stat_clear_snapshot() where datname = current_database()
    """
    async with BackfillClient(dsn) as client:
        await client.enqueue_bulk(NewJob("quick", number) for number in range(5_000))
    before = await value(dsn, commits)
    async with WorkerRunner(WorkerConfig(dsn, concurrency=50), runs.tasks):
        await eventually(lambda: len(runs.ended), lambda ended: ended == 5_000)
    # A backend reports what it did at its end; all of the worker's have ended.
    assert await eventually(lambda: value(dsn, commits), lambda after: after > before + 10) - before < 200


async def test_a_backlog_of_short_jobs_leaves_the_loop_to_others(dsn: str, eventually: Any) -> None:
    """A task that only looks at the clock is called at least every half second."""
    runs, longest = Runs(), 0.0

    async def watch() -> None:
        nonlocal longest
        seen = time.monotonic()
        while True:
            await asyncio.sleep(0)
            now = time.monotonic()
            longest, seen = max(longest, now - seen), now

    async with BackfillClient(dsn) as client:
        await client.enqueue_bulk(NewJob(("quick", "turn")[number % 2], number) for number in range(10_000))
        watching = asyncio.ensure_future(watch())
        async with WorkerRunner(WorkerConfig(dsn, concurrency=100), runs.tasks):
            await eventually(lambda: len(runs.ended), lambda ended: ended == 10_000)
        watching.cancel()
        await asyncio.wait([watching])
    assert longest < 0.5


async def test_a_serial_queues_next_comes_with_the_settlement(dsn: str, eventually: Any) -> None:
    """Twenty jobs of a queue cost about twenty turns: each claims what it frees."""
    runs = Runs()
    async with BackfillClient(dsn) as client:
        config = WorkerConfig(dsn, concurrency=4, poll_interval=NEVER)
        async with WorkerRunner(config, runs.tasks) as runner:
            pump, turns = parts(runner).pumps[0], 0
            exchange = pump._exchange

            async def counted(*arguments: Any) -> None:
                nonlocal turns
                turns += 1
                await exchange(*arguments)

            pump._exchange = counted
            await client.enqueue_bulk(NewJob("turn", number, JobSpec(queue=Queue.serial("q"))) for number in range(20))
            await eventually(lambda: value(dsn, LEFT), lambda left: left == 0, timeout=5)
    assert runs.ended == list(range(20))
    assert turns < 35


async def test_one_slot_keeps_the_order_while_it_claims_ahead(dsn: str) -> None:
    """A serial queue's next that comes before what is ready is waited for, though another look was under way."""
    runs, expected = Runs(), []
    async with BackfillClient(dsn) as client:
        for number in range(300):
            expected.append(number)
            queue = Queue.serial("q") if number % 10 < 2 else Queue.parallel()
            beginning = datetime(2020, 1, 1, tzinfo=UTC) + timedelta(seconds=number)
            await client.enqueue("turn", number, run_at=beginning, queue=queue)
    assert await WorkerRunner(WorkerConfig(dsn, concurrency=1), runs.tasks).process_available_jobs() == 300
    assert runs.ended == expected


@pytest.mark.parametrize("dear", [False, True])
async def test_late_commits_and_new_priorities_are_found_behind_the_floors(
    dsn: str, eventually: Any, monkeypatch: pytest.MonkeyPatch, dear: bool
) -> None:
    """A job with an old time, and one of a priority never seen, committed without a notification: the poll finds both.

    So it does where looks from the start are so dear that the second line makes them.
    """
    if dear:
        monkeypatch.setattr(full_looks, "DEAR_SECONDS", -1.0)
    runs = Runs()
    insert: LiteralString = """
    insert into graphile_worker._private_jobs (task_id, payload, priority, run_at)
    select id, '7', %s, now() - interval '1 year' from graphile_worker._private_tasks where identifier = 'quick'
    """
    async with BackfillClient(dsn) as client:
        config = WorkerConfig(dsn, concurrency=4, poll_interval=timedelta(milliseconds=300))
        async with WorkerRunner(config, runs.tasks):
            await warm(client, runs, eventually)
            for number, priority in enumerate((0, -77, 1234), 1):
                async with await psycopg.AsyncConnection.connect(dsn) as late:
                    await late.execute(insert, [priority])
                    await warm(client, runs, eventually, 20)
                begun = time.monotonic()
                await eventually(lambda: len(runs.ended), lambda ended, n=number: ended == 200 + 21 * n, timeout=5)
                assert time.monotonic() - begun < 2


async def test_a_retry_is_started_in_time_without_a_poll(dsn: str, eventually: Any) -> None:
    """The worker's own failure is a job for later like any other: the timer knows of it."""
    tasks: TaskRegistry[None] = TaskRegistry()
    begun: list[float] = []

    @tasks.task("fail")
    async def fail() -> None:
        begun.append(time.monotonic())
        if len(begun) == 1:
            raise ValueError

    async with BackfillClient(dsn) as client, WorkerRunner(WorkerConfig(dsn, poll_interval=NEVER), tasks):
        await client.enqueue("fail", None)
        await eventually(lambda: len(begun), lambda count: count == 2, timeout=8)
    assert 2.5 < begun[1] - begun[0] < 4  # the contract's first delay is e seconds


async def test_full_lanes_leave_idle_ones_alone(dsn: str, eventually: Any) -> None:
    """A lane whose slots are taken and whose backlog waits does not keep another's jobs, nor make the worker spin."""
    runs = Runs()
    lanes = [QueueConfig("holds", 2, tasks="hold"), QueueConfig.named_queue("user:*", 2), QueueConfig.default_queue(2)]
    async with BackfillClient(dsn) as client:
        await client.enqueue_bulk(NewJob("hold", number) for number in range(50))
        config = WorkerConfig(dsn, queues=lanes, poll_interval=NEVER)
        async with WorkerRunner(config, runs.tasks) as runner:
            await eventually(lambda: len(runs.held), lambda held: held == 2)
            for number in range(30):
                queue = Queue.serial_for("user", number) if number % 2 else Queue.parallel()
                await client.enqueue("quick", number, queue=queue)
            await eventually(lambda: len(runs.ended), lambda ended: ended == 30, timeout=5)
            turns, turn = 0, parts(runner).pumps[0]._turn

            async def counted() -> bool:
                nonlocal turns
                turns += 1
                return bool(await turn())

            parts(runner).pumps[0]._turn = counted
            await let_pass(0.5)
            assert turns < 10
            runs.release.set()
            await eventually(lambda: value(dsn, LEFT), lambda left: left == 0)


async def test_a_fleet_that_hears_of_jobs_does_not_look_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 500 a few look at once.

    The others once each, spread over time, however often they hear within a poll's interval.
    """
    clock = 1000.0
    monkeypatch.setattr(claiming, "time", SimpleNamespace(monotonic=lambda: clock))
    monkeypatch.setattr(timetable, "time", SimpleNamespace(monotonic=lambda: clock))
    monkeypatch.setattr(timetable, "random", random.Random(5))
    executor = Executor(TaskRegistry(), worker_id="backfill_test", client=cast("BackfillClient", None), deps=None)

    def claimer() -> Claimer:
        lanes = make_lanes((QueueConfig.default_queue(1),), schema="s", tasks=("t",), forbidden_flags=())
        sources = Sources(executor, lanes, schema="s", worker="w", patience=2.0, fleet=lambda: 500, stir=lambda: None)
        one = Claimer(
            executor, lanes, sources, schema="s", worker="w", tasks=("t",), poll_interval=2.0,
            stir=lambda: None, fleet=lambda: 500,
            lookout=Lookout("w", dead_after=20.0, dead=lambda dead: None), lost=lambda: None, pulse=Pulse(),
        )  # fmt: skip
        one.know_tasks({"t": 1})
        lanes[0].hungry = False
        return one

    def looks(one: Claimer) -> bool:
        one.keep_time(clock)
        hungry, one.lanes[0].hungry = one.lanes[0].hungry, False
        return hungry

    claimers = [claimer() for _ in range(500)]
    for one in claimers:
        one.hear(1)
    first = [one for one in claimers if looks(one)]
    assert 0 < len(first) < 25
    late = dict.fromkeys((one for one in claimers if one not in first), 0)
    most = 0
    for _ in range(199):
        clock += 0.01
        looking = 0
        for one in late:
            if looks(one):
                late[one] += 1
                looking += 1
            wakes = one.wakes
            one.hear(0)
            if one.wakes > wakes:  # this time it is among the first
                one.lanes[0].hungry = False
        most = max(most, looking)
    assert max(late.values()) == 1
    assert sum(late.values()) > 0.95 * len(late)
    assert most < 25
