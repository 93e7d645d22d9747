"""Workers that were given up while they lived, at a bad moment: each goes on, or ends as it was told to."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from backfill import BackfillClient, TaskRegistry, WorkerConfig, WorkerContext, WorkerRunner
from backfill.worker.pipeline.pump import PipelineLoop
from backfill.worker.session import WorkerSession
from backfill.worker.upkeep.counters import Counters
from fleet.processes import nothing_locked

from plugins.waiting import Eventually
from reading import rows

SECOND = timedelta(seconds=1)
WORKERS = "graphile_worker.backfill_workers"
GIVE_UP: LiteralString = f"update {WORKERS} set given_up_at = now() returning id"
IDS: LiteralString = f"select id from {WORKERS}"


class Holding:
    """A task whose first attempt waits for ever; later ones end at once."""

    def __init__(self) -> None:
        self.began: list[tuple[str, Any]] = []
        self.cancelled = asyncio.Event()
        self.tasks: TaskRegistry[None] = TaskRegistry()

        @self.tasks.task("hold")
        async def hold(payload: Any, ctx: WorkerContext[None]) -> None:
            self.began.append((ctx.worker_id, payload))
            if payload == "wait" and len(self.began) == 1:
                try:
                    await asyncio.Event().wait()
                finally:
                    self.cancelled.set()


class Way:
    """A function that gives a connection string, or does something else."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self.how = "well"

    async def __call__(self) -> str:
        """The string."""
        if self.how == "raises":
            raise ValueError("the vault is away")
        task = asyncio.current_task()
        if self.how == "hangs" and task is not None and not task.get_name().startswith("backfill-worker"):
            await asyncio.Event().wait()  # but not in psycopg's pool, which would wait for it at its end
        return make_conninfo(self._dsn, port="1") if self.how == "refused" else self._dsn


def _config(dsn: Any, *, listen: bool = False, **others: Any) -> WorkerConfig:
    return WorkerConfig(dsn, dead_after=4 * SECOND, heartbeat_interval=SECOND / 5, listen=listen, **others)


@pytest.mark.parametrize("how", ["raises", "refused"])
async def test_a_dsn_that_cannot_be_had_is_asked_for_again(dsn: str, eventually: Eventually, how: str) -> None:
    """Whatever its function raises; the worker lives meanwhile, and goes on."""
    holding, way = Holding(), Way(dsn)
    async with BackfillClient(dsn) as client, WorkerRunner(_config(way), holding.tasks) as runner:
        first, way.how = runner.worker_id, how
        await rows(dsn, GIVE_UP)
        await eventually(lambda: runner._parts is not None and runner._parts.one.abandoned)
        await eventually(lambda: not runner.health(ready_within=SECOND).ready)
        assert runner.health(live_within=SECOND).live
        way.how = "well"
        await client.enqueue("hold", 1)
        await eventually(lambda: [payload for _, payload in holding.began] == [1])
        assert runner.worker_id == holding.began[0][0] != first


async def test_a_dsn_that_never_comes_keeps_no_worker_from_its_end(dsn: str, eventually: Eventually) -> None:
    """The stop does not wait for the function."""
    holding, way = Holding(), Way(dsn)
    async with BackfillClient(dsn), asyncio.timeout(30), WorkerRunner(_config(way), holding.tasks) as runner:
        way.how = "hangs"
        await rows(dsn, GIVE_UP)
        await eventually(lambda: runner._parts is not None and runner._parts.one.abandoned)


async def test_a_stop_while_the_worker_comes_back_is_no_failure(
    dsn: str, eventually: Eventually, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is told as failed, and no row is left."""
    stopping, old = list[asyncio.Task[None]](), WorkerSession.open
    async with BackfillClient(dsn):
        runner = WorkerRunner(_config(dsn), Holding().tasks)
        async with runner:
            parts = runner._parts
            assert parts is not None

            async def stop_and_open(self: WorkerSession) -> None:
                stopping.append(asyncio.ensure_future(runner._stop()))
                await parts._closing.wait()
                await old(self)

            monkeypatch.setattr(WorkerSession, "open", stop_and_open)
            await rows(dsn, GIVE_UP)
            await eventually(lambda: stopping)
            await stopping[0]
            assert not parts.failed.done()
    assert [record for record in caplog.records if record.levelname == "CRITICAL"] == []
    assert len(await rows(dsn, IDS)) == 1  # the old one's


async def test_available_jobs_are_processed_to_the_end(dsn: str, eventually: Eventually) -> None:
    """By the new worker, where the one that began was given up; without what runs in the background."""
    holding = Holding()
    async with BackfillClient(dsn) as client, asyncio.timeout(40):
        await client.enqueue("hold", "wait")
        runner = WorkerRunner(_config(dsn), holding.tasks)
        work = asyncio.ensure_future(runner.process_available_jobs())
        await eventually(lambda: holding.began)
        await rows(dsn, GIVE_UP)
        assert await work == 2
        assert len({worker for worker, _ in holding.began}) == 2
        assert await nothing_locked(dsn) == []


async def test_what_others_have_is_not_drained(dsn: str, eventually: Eventually) -> None:
    """A worker that is given up in the midst of a drain cancels what runs instead of waiting for it."""
    holding = Holding()
    config = _config(dsn, shutdown_timeout=timedelta(minutes=10))
    async with BackfillClient(dsn) as client:
        await client.enqueue("hold", "wait")
        runner = WorkerRunner(config, holding.tasks)
        async with runner:
            await eventually(lambda: holding.began)
            stopping = asyncio.ensure_future(runner._stop())
            await eventually(lambda: "it is stopping" in runner.health().reasons)
            await rows(dsn, GIVE_UP)
            await eventually(holding.cancelled.is_set, timeout=8)
            await stopping


async def test_a_start_that_fails_leaves_no_row(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others would take it for a worker that died."""

    async def fail(self: Counters) -> None:
        raise psycopg.OperationalError("gone")

    monkeypatch.setattr(Counters, "learn_clock", fail)
    async with BackfillClient(dsn):
        with pytest.raises(psycopg.OperationalError):
            async with WorkerRunner(_config(dsn), Holding().tasks):
                pass
    assert await rows(dsn, IDS) == []


async def test_a_worker_whose_heartbeat_alone_is_cut_off_claims_no_more(dsn: str, eventually: Eventually) -> None:
    """No new connection is to be had, its old ones serve well: it learns by a claim that it was given up."""
    holding, way = Holding(), Way(dsn)
    async with BackfillClient(dsn) as client, WorkerRunner(_config(way), holding.tasks) as runner:
        first, parts = runner.worker_id, runner._parts
        assert parts is not None
        beaten: LiteralString = f"select id from {WORKERS} where heartbeat_at > started_at"
        await eventually(lambda: rows(dsn, beaten))
        way.how = "refused"
        parts.one.beat._refused.set()  # so that the thread is given what leads nowhere
        beat: LiteralString = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = %s"
        await eventually(parts.one.beat._refused.is_set, lambda wanted: not wanted)
        await eventually(lambda: rows(dsn, beat, f"backfill {first} beat"))
        await rows(dsn, f"delete from {WORKERS} returning id")
        await eventually(lambda: parts.one.abandoned, timeout=10)
        await client.enqueue("hold", 1)
        way.how = "well"
        await eventually(lambda: holding.began)
        assert holding.began == [(runner.worker_id, 1)]
        assert runner.worker_id != first


async def test_a_dsn_that_cannot_be_had_ends_no_worker(dsn: str, eventually: Eventually) -> None:
    """Also where its connections are lost while the function fails: it is asked again."""
    holding, way = Holding(), Way(dsn)
    listening: LiteralString = "select pid from pg_stat_activity where application_name = %s and query ~ 'Says whose'"
    cut: LiteralString = "select pg_terminate_backend(pid) from pg_stat_activity where application_name like %s"
    async with BackfillClient(dsn) as client, WorkerRunner(_config(way, listen=True), holding.tasks) as runner:
        parts = runner._parts
        assert parts is not None
        await eventually(lambda: runner.health().ready)
        await eventually(lambda: rows(dsn, listening, f"backfill {runner.worker_id} listen"))
        way.how = "raises"
        await rows(dsn, cut, f"backfill {runner.worker_id}%")
        await eventually(lambda: runner.health(ready_within=3 * SECOND).ready, lambda ready: not ready)
        assert not parts.failed.done()
        way.how = "well"
        await client.enqueue("hold", 1)
        await eventually(lambda: holding.began)


async def test_a_part_that_fails_leaves_no_heartbeat(
    dsn: str, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its worker ends: one that beat on would keep its jobs for ever."""
    holding = Holding()

    async def fail(self: PipelineLoop) -> bool:
        raise RuntimeError("broken")

    async with BackfillClient(dsn):
        runner = WorkerRunner(_config(dsn), holding.tasks)
        with pytest.raises(RuntimeError, match="broken"):  # noqa: PT012 - the end of the block is what raises
            async with runner:
                parts = runner._parts
                assert parts is not None
                monkeypatch.setattr(PipelineLoop, "_turn", fail)
                await eventually(parts.failed.done)
        assert parts.one.beat.task is not None
        assert parts.one.beat.task.done()
