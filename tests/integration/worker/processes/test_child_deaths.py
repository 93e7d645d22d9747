"""Children that end, or that do what they should not: each costs its own call, and says how it ended."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import uvloop

from backfill.worker.processes.deaths import ChildDied, described

from child_pools import Begun, call, do, ignore, pool_of
from plugins.waiting import Eventually
from programs import wait_until_gone


@pytest.mark.parametrize(
    ("how", "reason", "number", "code", "by_thread"),
    [
        ("SIGKILL", "was killed by signal 9 (SIGKILL; the system does that where memory is short)", 9, None, False),
        ("SIGSEGV", "was killed by signal 11 (SIGSEGV)", 11, None, False),
        ("abort", "was killed by signal 6 (SIGABRT)", 6, None, False),
        ("memory", "was killed by signal 6 (SIGABRT)", 6, None, False),
        ("exit 0", "ended with exit code 0", None, 0, False),
        ("exit 3", "ended with exit code 3", None, 3, False),
        ("SIGSEGV", "was killed by signal 11 (SIGSEGV)", 11, None, True),
        ("exit 3", "ended with exit code 3", None, 3, True),
    ],
)
async def test_how_a_child_ended(how: str, reason: str, number: int | None, code: int | None, by_thread: bool) -> None:
    """Its call fails with the signal or the exit code, and what it had said before was heard."""
    async with pool_of(2) as pool:
        pool.by_thread = by_thread
        other = Begun(pool, "wait_for_stop")
        await other.began()
        dying = Begun(pool, "end_by", how)
        with pytest.raises(ChildDied) as died:
            await dying.task
        assert (died.value.reason, died.value.signal, died.value.exit_code) == (reason, number, code)
        assert str(died.value) == f"the child process that ran the handler {reason}"
        assert dying.messages == [("began", b"")]
        pool.stop(other.call, "enough")
        await other.task


def test_signals_without_a_name() -> None:
    """Real-time signals have none."""
    assert described(-40) == "was killed by signal 40"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("write_rubbish", "sent something that is no message of a child"),
        ("close_everything", "closed its connection to the worker"),
        ("fork_and_die", "ended with exit code 5"),
    ],
)
async def test_a_child_that_spoils_its_connection(name: str, reason: str) -> None:
    """It is killed, and its call fails with what it did."""
    async with pool_of(1) as pool:
        with pytest.raises(ChildDied, match=reason):
            await do(pool, name)
        assert await do(pool, "give_back", 1) == 1


async def test_what_has_the_connections_number_now(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Files that a handler opened after it had closed everything get nothing of ours; the child ends and says why."""
    async with pool_of(1) as pool:
        with pytest.raises(ChildDied):
            await do(pool, "close_and_reuse", str(tmp_path / "file"))
    assert [os.stat(f"{tmp_path}/file.{number}").st_size for number in range(8)] == [0] * 8
    assert "Traceback" not in capfd.readouterr().err


async def test_a_forked_copy_ends_where_its_handler_returns(tmp_path: Path, eventually: Eventually) -> None:
    """It does not answer in its parent's place, and does not stay."""
    async with pool_of(1) as pool:
        copy = await do(pool, "fork", str(tmp_path / "copy"))
        await eventually(lambda: not psutil.pid_exists(copy) or psutil.Process(copy).status() == "zombie")
        assert (tmp_path / "copy").read_text(encoding="utf-8") == "the copy returns"
        assert await do(pool, "give_back", 1) == 1


async def test_threads_of_a_handler() -> None:
    """Threads that it leaves behind hinder no call; one that is no daemon hinders the child's end, up to a deadline."""
    async with pool_of(1, exit_timeout=0.5, max_jobs=2) as pool:
        assert await do(pool, "start_threads") >= 4
        first = psutil.Process(pool.children[0][0])
        assert await do(pool, "give_back", 1) == 1
        await asyncio.to_thread(wait_until_gone, [first], 10)
        assert await do(pool, "give_back", 1) == 1


async def test_a_child_that_hangs_on_exit() -> None:
    """It is killed after the time that it has for its end."""
    async with pool_of(1, b"hangs on exit", exit_timeout=0.5, max_jobs=1) as pool:
        pid = await do(pool, "pid")
        await asyncio.to_thread(wait_until_gone, [psutil.Process(pid)], 10)


async def test_prints_go_to_the_workers_outputs(capfd: pytest.CaptureFixture[str]) -> None:
    """A child has its worker's standard output and standard error, and writes what is buffered when it ends."""
    async with pool_of(1) as pool:
        await do(pool, "print_it", "printed by a child")
    output = capfd.readouterr()
    assert (output.out, output.err) == ("printed by a child\n", "printed by a child\n")


async def test_an_error_of_who_listens(eventually: Eventually) -> None:
    """Where the parent's code raises on a message, that call fails with the error, and its child is ended."""
    async with pool_of(1) as pool:

        def refuse(kind: str, data: bytes) -> None:
            raise LookupError(kind)

        with pytest.raises(LookupError, match="began"):
            await pool.run(call("wait", 60), refuse)
        assert list(pool.children) == []

        def refuse_the_beginning() -> None:
            raise LookupError("begin")

        with pytest.raises(LookupError, match="begin"):
            await pool.run(call("wait", 60), ignore, refuse_the_beginning)
        assert list(pool.children) == []
        assert await do(pool, "give_back", 1) == 1


async def test_an_idle_child_that_is_killed_costs_nothing(
    caplog: pytest.LogCaptureFixture, eventually: Eventually
) -> None:
    """No call fails: the next one has another child, and the log tells of the death."""
    async with pool_of(1) as pool:
        for _ in range(3):
            pid = await do(pool, "pid")
            os.kill(pid, signal.SIGKILL)
            await eventually(lambda: not pool.children)
            assert await do(pool, "pid") != pid
    assert "which ran no call, was killed by signal 9" in caplog.text
    assert [record for record in caplog.records if record.levelno > logging.WARNING] == []


async def test_a_call_that_a_dead_child_has_not_read(eventually: Eventually) -> None:
    """It has not begun, so that another child gets it and it does not fail."""
    async with pool_of(1) as pool:
        for _ in range(3):
            pid = await do(pool, "pid")
            os.kill(pid, signal.SIGSTOP)
            await eventually(lambda: psutil.Process(pid).status() == "stopped")  # noqa: B023 - it is awaited here
            begun = Begun(pool, "pid")
            await asyncio.sleep(0)
            os.kill(pid, signal.SIGKILL)
            assert (await begun.task).data != str(pid).encode()


async def test_a_stopped_child_that_is_killed_has_not_read_a_long_call(eventually: Eventually) -> None:
    """A call that is only partly read has not begun: another child gets it."""
    async with pool_of(1) as pool:
        pid = await do(pool, "pid")
        os.kill(pid, signal.SIGSTOP)
        await eventually(lambda: psutil.Process(pid).status() == "stopped")
        long = Begun(pool, "length", "x" * 50_000_000)
        await asyncio.sleep(0)
        os.kill(pid, signal.SIGKILL)
        assert (await long.task).data == b"50000000"


async def _random_kills(kills: int, seed: int) -> None:
    """Children are killed at random moments while calls run; each death costs its own call, and nothing else."""
    print(f"seed {seed}")
    chance = random.Random(seed)
    ended: dict[str, int] = {"died": 0, "returned": 0}
    asked = 0
    async with pool_of(4) as pool:

        async def one(number: int) -> None:
            nonlocal asked
            deed = chance.choice(
                ["give_back", "give_back", "SIGKILL", "SIGSEGV", "abort", "memory", "exit 0", "outside"]
            )
            if deed == "give_back":
                assert await do(pool, "give_back", number) == number
                ended["returned"] += 1
                return
            asked += 1
            begun = Begun(pool, "wait", 60) if deed == "outside" else Begun(pool, "end_by", deed)
            if deed == "outside":
                await begun.began()
                os.kill(chance.choice([pid for pid, _ in pool.children if pid in busy(begun)]), signal.SIGKILL)
            with pytest.raises(ChildDied):
                await begun.task
            ended["died"] += 1

        def busy(begun: Begun) -> set[int]:
            child = pool._by_call[begun.call]
            return {child.pid}

        async def several() -> None:
            while asked < kills:
                await one(asked)

        await asyncio.gather(*(several() for _ in range(4)))
        assert await do(pool, "give_back", "after all") == "after all"
    assert ended["died"] == asked >= kills


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_random_kills(factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """See `_random_kills`; the short form."""
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_random_kills(12, random.randrange(1 << 30)))


@pytest.mark.long
@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_random_kills_long(factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """200 of them."""
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_random_kills(200, random.randrange(1 << 30)))
