"""What a worker process and its supervisor tell each other about metrics, and what they do not wait for."""

from __future__ import annotations

import asyncio
import socket

import pytest

from backfill.cli.supervise import fleet_metrics, link
from backfill.cli.supervise.child import WorkerChild
from backfill.cli.supervise.fleet_metrics import FleetMetrics
from backfill.cli.supervise.link import Link
from backfill.metrics import books
from backfill.metrics.books import Count, Metrics
from backfill.metrics.catalogue import ATTEMPTS, DEPTH, MOST_TASKS
from backfill.metrics.snapshot import Snapshot, Value

LONGEST = "\N{GRINNING FACE}" * 124


async def test_metrics_larger_than_the_socket_come_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """They do not wait for the next reports, and no line is longer than the supervisor reads, whatever the tasks.

    Only those that were asked for count as read.
    """
    metrics = Metrics()
    metrics.want()
    for number in range(MOST_TASKS):
        labels = f"{LONGEST}{number:04}", "bulk_default"
        metrics.add(Count(ATTEMPTS, (*labels, outcome), number) for outcome in "abcdefgh")
    monkeypatch.setattr(books, "_metrics", metrics)
    metrics._read_at = float("-inf")
    monkeypatch.setattr(link, "REPORT_SECONDS", 600.0)
    told: asyncio.Queue[Snapshot] = asyncio.Queue()
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    child = WorkerChild(1, [], changed=lambda: None)
    child.told = told.put_nowait
    here = Link(theirs, 1)
    here._is_stopping = lambda: True
    transport, _ = await asyncio.get_running_loop().create_unix_connection(lambda: child._reports, sock=ours)
    try:
        here.tell()
        here.start()
        async with asyncio.timeout(20):
            assert (await told.get()).values == metrics.snapshot(asked=False).values
            assert metrics.seconds_unread == float("inf")  # told unasked
            child.ask()
            await told.get()
            assert metrics.seconds_unread < 60
    finally:
        transport.close()
        await child._reports.ended.wait()
        await asyncio.to_thread(here._thread.join)
        theirs.close()


async def test_a_process_that_does_not_answer_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that asks also answers the probes; it waits again when the process has told something."""
    fleet = FleetMetrics(asyncio.get_running_loop())
    child = WorkerChild(1, [], changed=lambda: None)  # it is not started, so it never answers
    labels = "t", "bulk_default", "completed"
    told = Snapshot({(ATTEMPTS.name, labels): Value(3.0)})
    fleet.heard(child, told)
    monkeypatch.setattr(fleet_metrics, "ANSWER_SECONDS", 0.01)
    await asyncio.to_thread(fleet.snapshot)
    monkeypatch.setattr(fleet_metrics, "ANSWER_SECONDS", 30.0)
    async with asyncio.timeout(20):
        assert dict((await asyncio.to_thread(fleet.snapshot)).of(ATTEMPTS)) == {labels: Value(3.0)}
        fleet.heard(child, told)
        asking = asyncio.create_task(asyncio.to_thread(fleet.snapshot))
        while not fleet._awaited:
            assert not asking.done()
            await asyncio.sleep(0)
        fleet.ended(child)
        assert dict((await asking).of(ATTEMPTS)) == {labels: Value(3.0)}


async def test_a_task_never_becomes_other() -> None:
    """Where processes have over 200 tasks together, no series goes down when one of the processes ends."""
    fleet = FleetMetrics(asyncio.get_running_loop())
    first, second = (WorkerChild(number, [], changed=lambda: None) for number in (1, 2))

    def told(numbers: range) -> Snapshot:
        return Snapshot({(ATTEMPTS.name, (f"t{one}", "bulk_default", "completed")): Value(1.0) for one in numbers})

    fleet.heard(first, told(range(MOST_TASKS)))
    fleet.heard(second, told(range(100, 100 + MOST_TASKS)))
    fleet._silent |= {first, second}
    before = dict((await asyncio.to_thread(fleet.snapshot)).of(ATTEMPTS))
    assert before["other", "bulk_default", "completed"] == Value(100.0)
    for child in (second, first):
        fleet.ended(child)
        assert dict((await asyncio.to_thread(fleet.snapshot)).of(ATTEMPTS)) == before


async def test_gauges_of_a_process_that_says_nothing_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one may look at the queue in its place by then; its counts stay, and all is back with its next word."""
    fleet = FleetMetrics(asyncio.get_running_loop())
    child = WorkerChild(1, [], changed=lambda: None)
    told = Snapshot({(ATTEMPTS.name, ("t", "b", "completed")): Value(3.0), (DEPTH.name, ("due", "t")): Value(7.0)})
    fleet.heard(child, told)
    fleet._silent.add(child)
    assert (await asyncio.to_thread(fleet.snapshot)).values.items() >= told.values.items()
    fleet._heard_at[child] -= fleet_metrics.UNHEARD_SECONDS
    seen = await asyncio.to_thread(fleet.snapshot)
    assert list(seen.of(ATTEMPTS)) == [(("t", "b", "completed"), Value(3.0))]
    assert not list(seen.of(DEPTH))
    fleet.heard(child, told)
    fleet._silent.add(child)
    assert list((await asyncio.to_thread(fleet.snapshot)).of(DEPTH)) == [(("due", "t"), Value(7.0))]
