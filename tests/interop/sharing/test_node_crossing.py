"""Jobs cross from Node to us and back with all that they say: queues, priorities, flags, times and payloads."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from backfill import JobSpec, NewJob, Queue
from shared_queue import LEFT, LOCKED, ONE_EACH, Sharing

from plugins.crossings import OURS

HOUR = timedelta(hours=1)
PAYLOADS = [{}, {"a": [1, {"b": None}]}, "text", 7, 1.5, True, "ä\u2028😀", {"": ""}, {"n": 2**53 - 1}]


def past() -> datetime:
    """An hour ago, to the millisecond: Node's dates have no finer time."""
    now = datetime.now(UTC) - HOUR
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


async def test_nodes_jobs_reach_us_whole(sharing: Sharing) -> None:
    """Queue, priority, key, flags, number of runs, past run_at and payload, in the order of the contract."""
    moment = past()
    full = {
        "queueName": "line",
        "jobKey": "k",
        "priority": -7,
        "maxAttempts": 4,
        "flags": ["gpu", "slow"],
        "runAt": moment.isoformat(),
    }
    plain = await sharing.node.add("t", {"name": "plain"})
    first = await sharing.node.add("t", {"name": "full"}, **full)
    later = await sharing.node.add("t", {"name": "late"}, priority=9)
    ran = await sharing.work("t")
    assert [job["id"] for job in ran] == [int(first["id"]), int(plain["id"]), int(later["id"])]
    assert ran[0] == {
        "payload": {"name": "full"},
        "attempt": 1,
        "id": int(first["id"]),
        "task_identifier": "t",
        "queue_name": "line",
        "priority": -7,
        "key": "k",
        "flags": ("gpu", "slow"),
        "max_attempts": 4,
        "run_at": moment,
    }
    assert (ran[1]["queue_name"], ran[1]["key"], ran[1]["flags"], ran[1]["max_attempts"]) == (None, None, (), 25)
    await sharing.nothing_left()


async def test_ours_reach_node_whole(sharing: Sharing) -> None:
    """The same from us to Node."""
    moment = past()
    plain = await sharing.enqueue("t", {"name": "plain"})
    lane = Queue.serial("line")
    first = await sharing.enqueue(
        "t", {"name": "full"}, queue=lane, job_key="k", priority=-7, max_attempts=4, flags=["gpu"], run_at=moment
    )
    later = await sharing.enqueue("t", {"name": "late"}, priority=9)
    ran = await sharing.node.work("t")
    assert [int(job["id"]) for job in ran] == [first.id, plain.id, later.id]
    told = {name: ran[0][name] for name in ("payload", "attempts", "queue", "key", "priority", "max_attempts", "flags")}
    assert told == {
        "payload": {"name": "full"},
        "attempts": 1,
        "queue": "line",
        "key": "k",
        "priority": -7,
        "max_attempts": 4,
        "flags": {"gpu": True},
    }
    assert datetime.fromisoformat(ran[0]["run_at"]) == moment
    assert [ran[1][name] for name in ("queue", "key", "flags", "max_attempts")] == [None, None, None, 8]
    await sharing.nothing_left()


@ONE_EACH
async def test_payloads_arrive_as_they_were_sent(sharing: Sharing) -> None:
    """Objects, texts, numbers and truth values, both ways; both sides know the same JSON."""
    for number, payload in enumerate(PAYLOADS):
        await sharing.node.add("ours", payload, priority=number)
        await sharing.enqueue("theirs", payload, priority=number)
    assert [job["payload"] for job in await sharing.work("ours")] == PAYLOADS
    assert [job["payload"] for job in await sharing.node.work("theirs")] == PAYLOADS


async def test_a_future_job_waits_for_both(sharing: Sharing) -> None:
    """Neither runs it before its time, whoever added it, and each runs the other's when the time has come."""
    soon = datetime.now(UTC) + HOUR
    await sharing.node.add("t", {"by": "node"}, runAt=soon.isoformat())
    await sharing.enqueue("t", {"by": "us"}, run_at=soon)
    assert await sharing.work("t") == []
    assert await sharing.node.work("t") == []
    assert await sharing.value(LEFT) == 2
    due = "update graphile_worker._private_jobs set run_at = now() - interval '1 second' where payload->>'by' = %s"
    await sharing.rows(due, "node")
    assert [job["payload"] for job in await sharing.work("t")] == [{"by": "node"}]
    await sharing.rows(due, "us")
    assert [job["payload"] for job in await sharing.node.work("t")] == [{"by": "us"}]


@ONE_EACH
async def test_priorities_are_one_order(sharing: Sharing) -> None:
    """Jobs of both in one backlog run by priority, then by run_at, whoever runs them."""
    wanted = [str(number) for number in range(6)]
    for runner in ("us", "node"):
        for number in (3, 0, 5, 2, 4, 1):
            moment = (datetime.now(UTC) - HOUR + number * timedelta(minutes=1)).isoformat()
            if number % 2:
                await sharing.node.add("t", {"name": str(number)}, priority=number // 2 - 1, runAt=moment)
            else:
                at = datetime.fromisoformat(moment)
                await sharing.enqueue("t", {"name": str(number)}, priority=number // 2 - 1, run_at=at)
        ran = await (sharing.work("t") if runner == "us" else sharing.node.work("t", concurrency=1))
        assert [job["payload"]["name"] for job in ran] == wanted, runner


@ONE_EACH
async def test_a_queue_is_one_for_both(sharing: Sharing) -> None:
    """Jobs of a serial queue that both added run in one order, and a queue that Node holds is left alone by us."""
    order = list[Any]()
    for number in range(6):
        if number % 2:
            order.append(int((await sharing.node.add("t", {"number": number}, queueName="line"))["id"]))
        else:
            order.append((await sharing.enqueue("t", {"number": number}, queue=Queue.serial("line"))).id)
    assert [job["id"] for job in await sharing.work("t")] == order
    held = await sharing.node.add("t", {"wait": True}, queueName="line")
    await sharing.enqueue("t", {"number": 7}, queue=Queue.serial("line"))
    await sharing.node.run("t", concurrency=2)
    await sharing.node.has_run(held["id"])
    assert await sharing.work("t") == []
    await sharing.node.call("release")
    await sharing.node.has_run(*await ids(sharing))
    await sharing.node.stop()
    await sharing.nothing_left()


async def ids(sharing: Sharing) -> list[int]:
    """The jobs that are there."""
    return [row[0] for row in await sharing.rows("select id from graphile_worker._private_jobs")]


FLAGS = [["gpu"], ["gpu", "slow"], ["light"], []]


async def _flagged(sharing: Sharing) -> None:
    """Twelve jobs, each list of flags by both sides; half of them in a serial queue."""
    for number in range(12):
        flags, lane = FLAGS[number % 4], f"line{number}" if number % 2 else None
        if number % 3:
            more = {} if lane is None else {"queueName": lane}
            await sharing.node.add("t", {"number": number}, flags=flags, **more)
        else:
            queue = Queue.parallel() if lane is None else Queue.serial(lane)
            await sharing.enqueue("t", {"number": number}, flags=flags, queue=queue)


def _numbers(ran: list[dict[str, Any]]) -> list[int]:
    return sorted(job["payload"]["number"] for job in ran)


@ONE_EACH
async def test_forbidden_flags(sharing: Sharing) -> None:
    """Each side leaves alone the jobs of both that carry a flag which it is forbidden; the other one runs them."""
    await _flagged(sharing)
    assert _numbers(await sharing.work("t", forbidden_flags=["slow", "odd"])) == [0, 2, 3, 4, 6, 7, 8, 10, 11]
    assert _numbers(await sharing.node.work("t", forbiddenFlags=["odd"])) == [1, 5, 9]
    await _flagged(sharing)
    assert _numbers(await sharing.node.work("t", forbiddenFlags=["gpu", "light"])) == [3, 7, 11]
    assert _numbers(await sharing.work("t")) == [0, 1, 2, 4, 5, 6, 8, 9, 10]
    await sharing.nothing_left()


@ONE_EACH
async def test_accepted_flags(sharing: Sharing) -> None:
    """We take only the jobs with an accepted flag, Node's as well as ours, and Node runs what is left."""
    await _flagged(sharing)
    assert _numbers(await sharing.work("t", accepted_flags=["gpu"], forbidden_flags=["slow"])) == [0, 4, 8]
    assert _numbers(await sharing.work("t", accepted_flags=["slow", "light"])) == [1, 2, 5, 6, 9, 10]
    assert _numbers(await sharing.node.work("t")) == [3, 7, 11]
    await sharing.nothing_left()


@ONE_EACH
async def test_jobs_in_bulk(sharing: Sharing) -> None:
    """Hundreds by COPY run in Node, those that go by add_jobs for their keys too."""
    made = [NewJob("t", {"number": number}, JobSpec(priority=number % 3)) for number in range(150)]
    keyed = [NewJob("t", {"number": 150 + number}, JobSpec(job_key=f"k{number}")) for number in range(50)]
    await sharing.client.enqueue_bulk(made)
    await sharing.client.enqueue_bulk(keyed)
    for job in await ids(sharing):
        sharing.crossings.added(job, OURS)
    assert _numbers(await sharing.node.work("t", concurrency=10)) == list(range(200))
    await sharing.nothing_left()


@ONE_EACH
async def test_a_failure_is_retried_by_the_other(sharing: Sharing) -> None:
    """Attempts count on from one to the other, and the queue is free meanwhile."""
    ours = (await sharing.enqueue("t", {"fail": "not today"}, queue=Queue.serial("line"), max_attempts=9)).id
    theirs = int((await sharing.node.add("u", {"fail": "not today"}, queueName="line", maxAttempts=9))["id"])
    for task, job, first, second in (
        ("t", ours, sharing.node.work, sharing.work),
        ("u", theirs, sharing.work, sharing.node.work),
    ):
        for attempt, work in enumerate((first, second), start=1):
            [ran] = await work(task)
            assert ran.get("attempt", ran.get("attempts")) == attempt
            failed = await sharing.client.get_job(job)
            assert failed is not None
            assert (failed.attempts, failed.locked_by, "not today" in str(failed.last_error)) == (attempt, None, True)
            assert await sharing.value(LOCKED) == 0
            await sharing.client.reschedule_jobs([job], run_at=past())
