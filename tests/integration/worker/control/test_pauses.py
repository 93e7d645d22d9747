"""Pauses of tasks and of everything, in one worker: what it claims, gives back and says, and how it goes on."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, LiteralString
from unittest.mock import patch

import pytest

from backfill import (
    BackfillClient,
    BeforeJobRun,
    Continue,
    Control,
    HookRegistry,
    JobSpec,
    NewJob,
    Queue,
    QueueConfig,
    TaskRegistry,
    WorkerConfig,
    WorkerRunner,
)
from backfill.storage.wire import Command, Wire

from plugins.periods import work_for
from plugins.waiting import Eventually
from reading import rows, value

SECOND = timedelta(seconds=1)
PROMISED = 1.0
"""How soon after the call a pause holds and a resumed task starts, in seconds."""
ROOM = 3.0
"""What is promised is kept in this many times the time, on a machine that others use too."""
JOBS = "graphile_worker._private_jobs"
WAITING: LiteralString = f"""
select count(*) from {JOBS} as jobs join graphile_worker._private_tasks as tasks on tasks.id = jobs.task_id
where tasks.identifier = %s and jobs.locked_at is null and jobs.attempts = 0
"""
LEFT: LiteralString = f"select count(*) from {JOBS}"


class Runs:
    """What ran: the names of the tasks, and when each began, in monotonic seconds."""

    def __init__(self) -> None:
        self.began: list[tuple[str, float]] = []
        self.release = asyncio.Event()
        self.tasks: TaskRegistry[None] = TaskRegistry()
        self.tasks.task("mail", aliases=["post", "letter"])(self.mail)
        self.tasks.task("pay")(self.pay)
        self.tasks.task("hold")(self.hold)

    async def mail(self, _: Any) -> None:
        """A few milliseconds."""
        self.began.append(("mail", time.monotonic()))
        await work_for(0.005)

    async def pay(self, _: Any) -> None:
        """The same."""
        self.began.append(("pay", time.monotonic()))
        await work_for(0.005)

    async def hold(self, _: Any) -> None:
        """Until it is released."""
        self.began.append(("hold", time.monotonic()))
        await self.release.wait()

    def of(self, task: str) -> list[float]:
        """When the attempts of a task began."""
        return [at for name, at in self.began if name == task]


@pytest.fixture
async def client(dsn: str) -> AsyncIterator[BackfillClient]:
    """An open client."""
    async with BackfillClient(dsn) as one:
        yield one


def runner_of(dsn: str, runs: Runs, *lanes: QueueConfig, plugins: Any = (), **settings: Any) -> WorkerRunner:
    """A worker with the three tasks."""
    queues = lanes or (QueueConfig.default_queue(4),)
    return WorkerRunner(WorkerConfig(dsn, queues=list(queues), **settings), runs.tasks, plugins=plugins)


def paused_in(runner: WorkerRunner) -> frozenset[str]:
    """The tasks that the worker knows to be paused."""
    assert runner._parts is not None
    return runner._parts.one.pauses.tasks


def standing_in(runner: WorkerRunner) -> list[Control]:
    """The pauses that the worker knows."""
    assert runner._parts is not None
    return list(runner._parts.one.pauses.standing.values())


@pytest.mark.parametrize("what", ["mail", "everything"])
async def test_a_worker_that_starts_during_a_pause_claims_nothing_of_it(
    dsn: str, client: BackfillClient, eventually: Eventually, what: str
) -> None:
    """Not even for a moment: no attempt is counted. Other tasks run, unless everything is paused."""
    runs = Runs()
    for task in ("mail", "post", "pay"):
        await client.enqueue_bulk(task, [{}] * 50)
    await (client.pause(task="mail") if what == "mail" else client.pause(everything=True))
    async with runner_of(dsn, runs) as runner:
        if what == "mail":
            await eventually(lambda: len(runs.of("pay")), lambda count: count == 50)
        await eventually(lambda: runner.health().claimed is not None)
        client_too = await client.pause(task="hold")  # by the time that this is heard, it has looked often
        await eventually(lambda: "hold" in paused_in(runner))
        assert [client_too.task, runs.of("mail")] == ["hold", []]
        assert [await value(dsn, WAITING, name) for name in ("mail", "post")] == [50, 50]
        assert len(runs.of("pay")) == (50 if what == "mail" else 0)


@pytest.mark.parametrize("slots", [1, 4])
@pytest.mark.parametrize("queue", [None, "serial"])
async def test_jobs_that_were_claimed_ahead_go_back(
    dsn: str, client: BackfillClient, eventually: Eventually, slots: int, queue: str | None
) -> None:
    """Nothing starts later than promised; what had not started has no attempt and no lock, and runs after the pause."""
    runs = Runs()
    spec = JobSpec(queue=Queue.serial(queue)) if queue else JobSpec()
    await client.enqueue_bulk([NewJob("mail", {}, spec)] * 2_000)
    async with runner_of(dsn, runs, QueueConfig.default_queue(slots)):
        await eventually(lambda: len(runs.began), lambda count: count >= 40)
        await client.pause(task="mail")
        returned = time.monotonic()
        await client.enqueue("pay", {})
        await eventually(lambda: len(runs.of("pay")))
        await eventually(lambda: value(dsn, WAITING, "mail"), lambda waiting: waiting + len(runs.of("mail")) == 2_000)
        assert runs.of("mail")[-1] < returned + ROOM * PROMISED
        await rows(dsn, f"delete from {JOBS} where id % 10 <> 0")
        left = await value(dsn, LEFT)
        begun = len(runs.of("mail"))
        resumed = time.monotonic()
        await client.resume(task="mail")
        await eventually(lambda: value(dsn, LEFT), lambda count: count == 0)
    assert runs.of("mail")[begun] < resumed + ROOM * PROMISED
    assert len(runs.of("mail")) == begun + left


async def test_what_runs_runs_on(dsn: str, client: BackfillClient, eventually: Eventually) -> None:
    """A pause of everything ends no handler, and its end is written during the pause."""
    runs = Runs()
    await client.enqueue("hold", {})
    async with runner_of(dsn, runs) as runner:
        await eventually(lambda: runs.began)
        await client.pause(everything=True, reason="a move", by="ann")
        await eventually(lambda: runner.health().all_paused)
        assert runner.health().ready
        assert runner.health().paused == ("hold", "letter", "mail", "pay", "post")
        assert runner.health().reasons == ()
        runs.release.set()
        await eventually(lambda: value(dsn, LEFT), lambda count: count == 0)
        await client.resume(everything=True)
        await eventually(lambda: not runner.health().all_paused)
        assert runner.health().paused == ()


async def test_a_worker_without_notifications_hears_by_its_heartbeat(
    dsn: str, client: BackfillClient, eventually: Eventually
) -> None:
    """Of a pause and of its end."""
    runs = Runs()
    async with runner_of(dsn, runs, listen=False, heartbeat_interval=SECOND / 5, dead_after=4 * SECOND) as runner:
        await client.pause(task="mail")
        await eventually(lambda: "mail" in paused_in(runner), timeout=ROOM * PROMISED)
        await client.enqueue("mail", {})
        await client.enqueue("pay", {})
        await eventually(lambda: runs.of("pay"))
        assert not runs.of("mail")
        await client.resume(task="mail")
        await eventually(lambda: runs.of("mail"), timeout=ROOM * PROMISED + 2.0)


@pytest.mark.parametrize(
    ("said", "meant"), [("mail", {"mail", "post", "letter"}), ("post", {"post"}), ("unknown", set())]
)
async def test_a_tasks_own_name_means_its_aliases(dsn: str, client: BackfillClient, said: str, meant: set[str]) -> None:
    """An alias means that name only; a task that the worker does not know is no concern of its."""
    await client.pause(task=said)
    async with runner_of(dsn, Runs()) as runner:
        assert paused_in(runner) == meant
        assert not runner.health().all_paused


async def test_a_paused_job_does_not_pass_to_another_lane(
    dsn: str, client: BackfillClient, eventually: Eventually
) -> None:
    """The lane for it claims nothing at all, and the default lane still leaves it to that lane."""
    runs = Runs()
    await client.pause(task="mail")
    await client.enqueue("mail", {})
    sent = list[str]()
    lanes = QueueConfig("mails", 1, tasks=["mail", "post", "letter"]), QueueConfig.default_queue(2)
    async with runner_of(dsn, runs, *lanes, poll_interval=SECOND / 50) as runner:
        assert runner._parts is not None
        first, rest = runner._parts.one.station.claimer.lanes
        await client.enqueue_bulk("pay", [{}] * 20)
        await eventually(lambda: len(runs.of("pay")), lambda count: count == 20)
        assert (first.shut, rest.shut) == (True, False)
        with _noted(sent):
            await client.pause(everything=True)
            await eventually(lambda: runner.health().all_paused)
            sent.clear()
            await client.enqueue("pay", {})
            await eventually(lambda: [name for name in sent if "look_around" in name])  # many polls later
            assert [name for name in sent if "claim" in name or "lock" in name or "levels" in name] == []
        assert not runs.of("mail")


@contextmanager
def _noted(sent: list[str]) -> Iterator[None]:
    """Have the names of all statements of hot connections noted."""
    send = Wire.send

    async def noting(self: Wire, commands: Sequence[Command], *, timeout: float) -> Any:
        sent.extend(command.name for command in commands)
        return await send(self, commands, timeout=timeout)

    with patch.object(Wire, "send", noting):
        yield


async def test_an_attempt_that_waits_for_an_interceptor_goes_back(
    dsn: str, client: BackfillClient, eventually: Eventually
) -> None:
    """Its handler has not begun, so it must not begin after the interceptor has let it in."""
    runs, asked = Runs(), asyncio.Event()

    class Slow:
        def register(self, hooks: HookRegistry) -> None:
            hooks.on(BeforeJobRun, self.before)

        async def before(self, event: BeforeJobRun) -> Any:
            if event.job.task_identifier == "mail" and not asked.is_set():
                asked.set()
                await asyncio.Event().wait()
            return Continue()

    await client.enqueue("mail", {})
    async with runner_of(dsn, runs, plugins=[Slow()]):
        await asked.wait()
        await client.pause(task="mail")
        await eventually(lambda: value(dsn, WAITING, "mail"), lambda count: count == 1, timeout=ROOM * PROMISED)
        assert not runs.of("mail")
        await client.resume(task="mail")
        await eventually(lambda: runs.of("mail"))


@pytest.mark.parametrize("slots", [1, 4])
@pytest.mark.parametrize("everything", [False, True])
async def test_a_pass_that_drains_ends_although_paused_jobs_wait(
    dsn: str, client: BackfillClient, slots: int, everything: bool
) -> None:
    """It runs the others, serial ones too, leaves the paused ones as they are, and takes them the next time."""
    runs = Runs()
    await client.enqueue_bulk("mail", [{}] * 300)
    spec = JobSpec(queue=Queue.serial("q"))
    await client.enqueue_bulk([NewJob("mail", {}, spec)] * 30 + [NewJob("pay", {}, spec)] * 20)
    await client.enqueue_bulk("pay", [{}] * 20)
    await client.pause(everything=True) if everything else await client.pause(task="mail")
    runner = runner_of(dsn, runs, QueueConfig.default_queue(slots))
    async with asyncio.timeout(60):
        assert await runner.process_available_jobs() == (0 if everything else 40)
    assert await value(dsn, WAITING, "mail") == 330
    await client.resume(everything=True) if everything else await client.resume(task="mail")
    assert (
        await runner_of(dsn, runs, QueueConfig.default_queue(slots)).process_available_jobs() == 330 + 40 * everything
    )


async def test_a_stop_during_a_pause_leaves_the_jobs(dsn: str, client: BackfillClient, eventually: Eventually) -> None:
    """It ends at once, and nothing stays locked."""
    runs = Runs()
    await client.enqueue_bulk("mail", [{}] * 500)
    async with runner_of(dsn, runs):
        await eventually(lambda: len(runs.began), lambda count: count > 20)
        await client.pause(everything=True)
        began = time.monotonic()
    assert time.monotonic() - began < 10
    assert await value(dsn, WAITING, "mail") == 500 - len(runs.began)


async def test_a_new_session_knows_the_pauses_before_it_claims(
    dsn: str, client: BackfillClient, eventually: Eventually
) -> None:
    """A worker that was given up during a pause goes on under a new id, and claims nothing that is paused."""
    runs = Runs()
    await client.pause(task="mail", by="ann")
    async with runner_of(dsn, runs, heartbeat_interval=SECOND / 5, dead_after=4 * SECOND) as runner:
        await client.enqueue_bulk("mail", [{}] * 50)
        first = runner.worker_id
        await rows(dsn, "update graphile_worker.backfill_workers set given_up_at = now()")
        await eventually(lambda: runner.worker_id not in (None, first))
        await client.enqueue("pay", {})
        await eventually(lambda: runs.of("pay"))
        assert await value(dsn, WAITING, "mail") == 50


async def test_what_a_version_does_not_know_is_left_out_with_one_warning(
    dsn: str, client: BackfillClient, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    """However often control is read; the pauses beside it hold."""
    insert: LiteralString = (
        "insert into graphile_worker.backfill_control (kind, subject, said, said_by, reason)"
        " values ('teleport', 'task:mail', '{}', 'ann', 'tomorrow')"
    )
    await rows(dsn, insert)
    await client.pause(task="mail")
    caplog.set_level(logging.INFO, "backfill")
    async with runner_of(dsn, Runs()) as runner:
        assert paused_in(runner) == {"mail", "post", "letter"}
        await client.pause(task="pay")
        await eventually(lambda: "pay" in paused_in(runner))
    warned = [
        record.getMessage() for record in caplog.records if "cannot be read by this version" in record.getMessage()
    ]
    assert len(warned) == 1
    assert "teleport of task:mail, said by ann: tomorrow" in warned[0]


async def test_the_log_says_who_paused_and_why(
    dsn: str, client: BackfillClient, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    """One line where a pause begins, one where it ends, and one where somebody else says it again."""
    caplog.set_level(logging.INFO, "backfill")
    async with runner_of(dsn, Runs()) as runner:
        await client.pause(task="mail", reason="the provider\nis down", by="ann")
        await eventually(lambda: "mail" in paused_in(runner))
        again = await client.pause(task="mail", reason="still", by="bob")
        await eventually(lambda: again in standing_in(runner))
        await client.pause(everything=True, by="bob")
        await eventually(lambda: runner.health().all_paused)
        await client.resume(everything=True)
        await eventually(lambda: not runner.health().all_paused)
        await client.resume(task="mail")
        await eventually(lambda: not standing_in(runner))
    said = [record.getMessage() for record in caplog.records if record.name == "backfill.worker.control.pauses"]
    assert said == [
        "task mail is paused by ann: the provider is down",
        "task mail is paused by bob: still",
        "everything is paused by bob",
        "everything is paused no more; it was paused by bob",
        "task mail is paused no more; it was paused by bob: still",
    ]
