"""How children begin, and what becomes of calls where they cannot."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence

import pytest

from backfill.worker.processes.calls import Call
from backfill.worker.processes.deaths import ChildNotStarted
from backfill.worker.processes.pool import ChildPool

from child_pools import Begun, do, ignore, pool_of
from places import TESTS
from plugins.waiting import Eventually


@pytest.mark.parametrize(
    ("setup", "reason"),
    [
        (b"refuses", r"could not be made ready:\n(.|\n)*LookupError: the setup is refused"),
        (b"exits", "ended with exit code 7 before it was ready"),
    ],
)
async def test_a_child_that_does_not_become_ready(setup: bytes, reason: str) -> None:
    """The call fails with the reason; the next one waits a moment longer each time."""
    async with pool_of(2, setup) as pool:
        times = [time.monotonic()]
        for _ in range(4):
            with pytest.raises(ChildNotStarted, match=reason):
                await do(pool, "pid")
            times.append(time.monotonic())
        assert times[4] - times[0] > 0.1 + 0.2 + 0.4
        assert list(pool.children) == []


async def test_many_calls_where_no_child_starts(caplog: pytest.LogCaptureFixture) -> None:
    """They do not start children in a hot loop. After five starts all of them fail, rather than wait for hours."""
    async with pool_of(4, b"exits") as pool:
        began = time.monotonic()
        tasks = [Begun(pool, "pid").task for _ in range(50)]
        await asyncio.wait(tasks, timeout=60)
        assert time.monotonic() - began > 0.8
        assert [type(task.exception()) for task in tasks] == [ChildNotStarted] * 50
        assert pool._failures == 5
        (error,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
        assert error.startswith("5 starts of a child process in a row have failed")


async def test_children_that_cannot_be_told_of() -> None:
    """As where the database is away: calls fail without a child, and the first one after that runs."""
    told = 0

    async def tell(children: Sequence[tuple[int, int]]) -> None:
        nonlocal told
        told += 1
        if told < 3:
            raise OSError("the database is away")

    async with pool_of(1, on_children=tell) as pool:
        for _ in range(2):
            with pytest.raises(OSError, match="the database is away"):
                await do(pool, "pid")
            assert list(pool.children) == []
        assert await do(pool, "give_back", 1) == 1


@pytest.mark.parametrize(
    ("handler", "reason"),
    [
        ("no_such_module:Deeds", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("child_deeds:Missing", "AttributeError: module 'child_deeds' has no attribute 'Missing'"),
    ],
)
async def test_a_handler_that_is_not_there(handler: str, reason: str) -> None:
    """The call fails with what the import raised."""
    pool = ChildPool(1, handler)
    with pytest.raises(ChildNotStarted, match=reason):
        await pool.run(Call(b""), ignore)
    await pool.close()


async def test_a_child_that_is_never_ready() -> None:
    """It is killed when its time to become ready is over; a pool that closes meanwhile does not wait for it."""
    async with pool_of(1, b"waits", start_timeout=2.0) as pool:
        with pytest.raises(ChildNotStarted, match="was not ready within 2 seconds"):
            await do(pool, "pid")
        assert list(pool.children) == []
        begun = Begun(pool, "pid")
        await asyncio.sleep(0)
    with pytest.raises(ChildNotStarted, match="closed"):
        await begun.task


async def test_a_parent_without_descriptors() -> None:
    """The call fails with the system's reason, and the next one runs when descriptors are there again."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with pool_of(1) as pool:
        used = max(int(name) for name in os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (used, hard))
        fillers = []
        try:
            while True:
                fillers.append(os.dup(0))
        except OSError:
            pass
        try:
            with pytest.raises(ChildNotStarted, match="Too many open files"):
                await do(pool, "pid")
        finally:
            for one in fillers:
                os.close(one)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert await do(pool, "give_back", 1) == 1


async def test_an_interpreter_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what is missing."""
    async with pool_of(1) as pool:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", "/nowhere/python")
            with pytest.raises(ChildNotStarted, match="No such file or directory: '/nowhere/python'"):
                await do(pool, "pid")
            patch.setattr(sys, "executable", "")
            with pytest.raises(ChildNotStarted, match="run the worker by python"):
                await do(pool, "pid")
        assert await do(pool, "give_back", 1) == 1


async def test_new_children_are_told_before_their_first_call(eventually: Eventually) -> None:
    """Whoever is to know of them is awaited, one telling at a time, and each tells of all that live."""
    told: list[Sequence[tuple[int, int]]] = []
    under_way = 0
    may_end = asyncio.Event()

    async def on_children(children: Sequence[tuple[int, int]]) -> None:
        nonlocal under_way
        under_way += 1
        assert under_way == 1
        told.append(children)
        await may_end.wait()
        under_way -= 1

    async with pool_of(3, on_children=on_children) as pool:
        several = [Begun(pool, "wait_for_stop") for _ in range(3)]
        await eventually(lambda: len(told) == 1 and len(pool.children) == 3)
        assert not any(one.messages for one in several)
        may_end.set()
        for one in several:
            await one.began()
        assert len(told) in {1, 2, 3}
        assert set(told[-1]) == set(pool.children)
        for one in several:
            pool.stop(one.call, "enough")
            await one.task


async def test_a_telling_that_fails() -> None:
    """The call fails with its error, the child ends, and the next one is told about anew."""
    fails = True

    async def on_children(children: Sequence[tuple[int, int]]) -> None:
        if fails:
            raise ConnectionError("no database")

    async with pool_of(1, on_children=on_children) as pool:
        with pytest.raises(ConnectionError, match="no database"):
            await do(pool, "pid")
        fails = False
        assert await do(pool, "give_back", 1) == 1


OPTIONS = """
import asyncio, json
from child_pools import pool_of, do
async def main():
    async with pool_of(1) as pool:
        print(json.dumps(await do(pool, "surroundings")))
asyncio.run(main())
"""


def test_options_of_the_interpreter() -> None:
    """A child has those of its parent."""
    options = ["-X", "dev", "-O", "-W", "ignore::DeprecationWarning", "-P"]
    output = subprocess.run(
        [sys.executable, *options, "-c", OPTIONS],
        check=True,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
    ).stdout
    seen = json.loads(output)
    assert seen["dev"]
    assert seen["optimize"] == 1
    assert "ignore::DeprecationWarning" in seen["warnings"]
    assert seen["main"].endswith("birth.py")
