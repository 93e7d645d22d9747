"""Calls that go well: what they return, say and see, and how they are stopped and cancelled."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import psutil
import pytest
import uvloop

from backfill.worker.processes.calls import Call
from backfill.worker.processes.deaths import ChildFailed
from backfill.worker.processes.pool import ChildPool

from child_pools import HANDLER, Begun, call, do, ignore, pool_of
from plugins.periods import let_pass
from programs import wait_until_gone


async def test_calls_return_bytes() -> None:
    """Calls of any size come back as they were given, one after another in one child, which is kept."""
    async with pool_of(2) as pool:
        for text in ("", "a", "x" * 100_000, "é" * 5_000_000):
            assert await do(pool, "give_back", text) == text
        outcome = await pool.run(call("return_bytes", 100_000_000), ignore)
        assert outcome.data == b"x" * 100_000_000
        assert len(pool.children) == 1


async def test_calls_run_at_once_in_as_many_children() -> None:
    """No more children than the size run calls; other calls wait for one."""
    async with pool_of(2) as pool:
        pids = await asyncio.gather(*(do(pool, "pid") for _ in range(20)))
        assert len(set(pids)) <= 2
        first, second = Begun(pool, "wait_for_stop"), Begun(pool, "wait_for_stop")
        await asyncio.gather(first.began(), second.began())
        third = asyncio.create_task(do(pool, "pid"))
        await asyncio.sleep(0)
        assert not third.done()
        pool.stop(first.call, "enough")
        assert (await first.task).data == b'"enough"'
        assert await third in {pid for pid, _ in pool.children}
        pool.stop(first.call, "it has ended already")
        pool.stop(second.call, "é" * 5000)
        assert (await second.task).data.startswith(b'"\\u00e9')


async def test_messages_come_in_order_and_before_the_end() -> None:
    """100,000 messages, more than the connection holds, are all heard in order, and the loop has its turns between."""
    async with pool_of(1) as pool:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        begun = Begun(pool, "send", 100_000, 20)
        await begun.task
        counting.cancel()
        assert [int.from_bytes(data[:4], "big") for _, data in begun.messages] == list(range(100_000))
        assert turns > 30
        threaded = Begun(pool, "send_from_threads", 8, 500)
        await threaded.task
        assert len(threaded.messages) == 4000
        await do(pool, "remember")
        later = Begun(pool, "talk_about_the_last")
        await later.task
        assert [kind for kind, _ in later.messages] == ["now"]


async def test_what_the_handlers_side_raises() -> None:
    """It reaches the caller with its type, text and traceback; the child lives on."""
    texts = {
        "SystemExit": "3",
        "KeyboardInterrupt": "",
        "ValueError": "no such value",
        "MemoryError": "",
        "Unshowable": "<Unshowable cannot be shown: RuntimeError>",
    }
    async with pool_of(1) as pool:
        pid = await do(pool, "pid")
        for kind, text in texts.items():
            with pytest.raises(ChildFailed) as raised:
                await do(pool, "raise_it", kind)
            assert (raised.value.kind, raised.value.text) == (kind, text)
            assert "in raise_it" in raised.value.traceback
        await do(pool, "return_text")
        with pytest.raises(ChildFailed, match="TypeError: the handler's side returned str: bytes"):
            await do(pool, "nothing")
        assert [number for number, _ in pool.children] == [pid]


async def test_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A child has its parent's interpreter, path, folder and environment, its setup, and a process group of its own."""
    monkeypatch.setenv("BACKFILL_TEST", "é")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "elsewhere"))
    async with pool_of(1, b"secret") as pool:
        seen = await do(pool, "surroundings")
        assert seen["executable"] == sys.executable
        assert seen["path"] == sys.path
        assert seen["argv"] == sys.argv
        assert seen["folder"] == str(tmp_path)
        assert os.environ.items() <= seen["environment"].items()
        assert seen["setup"] == "secret"
        assert seen["thread"]
        assert seen["group"]
        ((pid, started),) = pool.children
        assert "secret" not in " ".join(psutil.Process(pid).cmdline())
        assert started == _start_time(pid)


async def test_signals_from_outside_end_no_child() -> None:
    """SIGINT and SIGTERM are ignored, as a terminal and a service manager send them; programs started there end."""
    async with pool_of(1) as pool:
        assert await do(pool, "signal_itself", signal.SIGINT) == "lives"
        assert await do(pool, "signal_itself", signal.SIGTERM) == "lives"
        assert await do(pool, "handlers_of_a_program") == []


async def test_a_cancelled_call_is_terminated(tmp_path: Path) -> None:
    """`Terminated` is raised in its thread, its child ends, and no other call is touched."""
    async with pool_of(2) as pool:
        cancelled, other = Begun(pool, "wait_with_end", str(tmp_path / "end")), Begun(pool, "wait_for_stop")
        await asyncio.gather(cancelled.began(), other.began())
        began = time.monotonic()
        await cancelled.cancelled()
        assert time.monotonic() - began < 2
        assert (tmp_path / "end").read_text(encoding="utf-8") == "terminated"
        assert len(pool.children) == 1
        pool.stop(other.call, "enough")
        await other.task
        assert await do(pool, "give_back", 1) == 1


@pytest.mark.parametrize(("name", "arguments"), [("defy", ()), ("sleep_in_c", (60,)), ("compute_in_c", ())])
async def test_what_does_not_end_is_killed(name: str, arguments: tuple[int, ...]) -> None:
    """A call that goes on after `Terminated`, or that holds the interpreter's lock in C, is killed after the grace."""
    async with pool_of(1, terminate_grace=0.3) as pool:
        begun = Begun(pool, name, *arguments)
        await begun.began()
        await let_pass(0.5)  # it says so shortly before it is in C, where nobody can ask it
        began = time.monotonic()
        await begun.cancelled()
        assert 0.3 <= time.monotonic() - began < 3
        assert list(pool.children) == []
        assert await do(pool, "give_back", 1) == 1


async def test_a_second_cancellation_kills_at_once() -> None:
    """Whoever cancels again has no patience any more."""
    async with pool_of(1, terminate_grace=60) as pool:
        begun = Begun(pool, "defy")
        await begun.began()
        begun.task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await begun.cancelled()
        assert list(pool.children) == []


async def test_what_a_cancelled_call_started_is_killed_too() -> None:
    """Processes of the child's group end with a call that is ended by force."""
    async with pool_of(1) as pool:
        begun = Begun(pool, "fork_and_wait")
        copy = psutil.Process(int(await begun.began()))
        await begun.cancelled()
        wait_until_gone([copy], 10)


async def test_a_call_that_waits_for_a_child_can_be_cancelled() -> None:
    """It never begins, and the child that was meant for it serves another call."""
    async with pool_of(1) as pool:
        first = Begun(pool, "wait_for_stop")
        await first.began()
        second = Begun(pool, "pid")
        await asyncio.sleep(0)
        await second.cancelled()
        third = Begun(pool, "pid")
        await asyncio.sleep(0)
        pool.stop(first.call, "enough")
        await first.task
        third.task.cancel()  # it has been given the child in this moment
        await asyncio.wait([third.task])
        assert await do(pool, "give_back", 1) == 1


async def test_children_are_recycled(tmp_path: Path) -> None:
    """After so many calls, or with too much memory, a child ends by itself, and its handler is closed."""
    async with pool_of(1, str(tmp_path / "closed").encode(), max_jobs=3) as pool:
        pids = [await do(pool, "pid") for _ in range(7)]
        assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3, 1]
    assert (tmp_path / "closed").read_text(encoding="utf-8") == "closed after 1"
    async with pool_of(1, max_rss=300 << 20) as pool:
        first = await do(pool, "pid")
        outcome = await pool.run(call("nothing"), ignore)
        assert outcome.rss is not None
        assert 1 << 20 < outcome.rss < 300 << 20
        assert await do(pool, "pid") == first
        await do(pool, "grow", 400)
        assert await do(pool, "pid") != first


async def test_a_smaller_pool_lets_children_end() -> None:
    """Idle children beyond the new size end, and those that run calls end after them."""
    async with pool_of(3) as pool:
        several = [Begun(pool, "wait_for_stop") for _ in range(3)]
        for one in several:
            await one.began()
        pool.resize(1)
        for one in several:
            pool.stop(one.call, "enough")
            await one.task
        pids = {await do(pool, "pid") for _ in range(5)}
        assert len(pids) == 1


async def test_closing_ends_what_runs() -> None:
    """A call that runs fails, one that waits too, and none begins any more."""
    pool = ChildPool(1, HANDLER)
    running, waiting = Begun(pool, "defy"), Begun(pool, "pid")
    await running.began()
    began = time.monotonic()
    await pool.close(timeout=1.0)
    assert time.monotonic() - began < 3
    with pytest.raises(Exception, match=r"was ended: the call went on for 0\.5 seconds after it was told to end"):
        await running.task
    with pytest.raises(Exception, match="the pool of child processes is closed"):
        await waiting.task
    with pytest.raises(Exception, match="the pool of child processes is closed"):
        await pool.run(Call(b""), ignore)
    await pool.close()


def _start_time(pid: int) -> int:
    """When a process began, in clock ticks since the machine's start, as psutil has it."""
    since_boot = psutil.Process(pid).create_time() - psutil.boot_time()
    return round(since_boot * os.sysconf("SC_CLK_TCK"))


@pytest.mark.parametrize(
    "test",
    [
        test_calls_return_bytes,
        test_messages_come_in_order_and_before_the_end,
        test_a_cancelled_call_is_terminated,
        test_closing_ends_what_runs,
    ],
)
def test_on_uvloop(test: Callable[..., Coroutine[Any, Any, None]], tmp_path: Path) -> None:
    """The same on the other event loop."""
    arguments = [tmp_path] if "tmp_path" in inspect.signature(test).parameters else []
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(test(*arguments))
