"""What the log says of attempts: why they failed, whose record it is, and that the worker has stopped."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import signal
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from backfill import (
    BackfillClient,
    Discard,
    RetryPolicy,
    Snooze,
    TaskRegistry,
    WorkerConfig,
    WorkerContext,
    WorkerRunner,
    logs,
)
from backfill.errors import ConfigurationError, Forbidden

from programs import running, shell

AT_ONCE = RetryPolicy(8, timedelta(0), timedelta(0))
SHOP = logging.getLogger("shop.orders")


class Heard(logging.Handler):
    """Keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def of(self, name: str) -> list[logging.LogRecord]:
        """Those of one logger."""
        return [record for record in self.records if record.name == name]


@pytest.fixture
def heard() -> Iterator[Heard]:
    """What all loggers say, with the job's filter."""
    handler, root = Heard(), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    logs.install(handler)
    logs.install(handler)
    assert len(handler.filters) == 1
    yield handler
    root.removeHandler(handler)
    root.setLevel(level)


async def _work(dsn: str, tasks: TaskRegistry[Any], **settings: Any) -> None:
    await WorkerRunner(WorkerConfig(dsn, **settings), tasks).process_available_jobs()


def _failing(error: BaseException) -> TaskRegistry[Any]:
    tasks: TaskRegistry[Any] = TaskRegistry()

    @tasks.task("t", retry=AT_ONCE)
    async def handler(payload: Any) -> None:
        raise error

    return tasks


async def test_failures_say_why(dsn: str, heard: Heard) -> None:
    """A retry at WARNING with class and message on one line; the last attempt at ERROR, with the exception itself."""
    error = ValueError("no such\nuser")
    async with BackfillClient(dsn) as client:
        await client.enqueue("t", {"card": "4111"}, max_attempts=2)
        await _work(dsn, _failing(error))
    first, last = heard.of("backfill.worker.execution.outcomes")
    assert (first.levelname, last.levelname) == ("WARNING", "ERROR")
    assert first.getMessage() == (
        "job 1 (t) failed in attempt 1 of 2 (the next begins in 0.0 s): ValueError: no such user"
    )
    assert last.getMessage() == "job 1 (t) failed in attempt 2 of 2 (it was the last): ValueError: no such user"
    assert first.exc_info is None
    assert last.exc_info is not None
    assert last.exc_info[1] is error
    told: list[Any] = [first, last]
    assert [(one.job_id, one.task, one.attempt) for one in told] == [(1, "t", 1), (1, "t", 2)]
    assert "4111" not in "".join(logging.Formatter().format(one) for one in heard.records)


async def test_what_is_not_retried_is_told_at_once(dsn: str, heard: Heard) -> None:
    """The class of the error makes the first attempt the last."""
    async with BackfillClient(dsn) as client:
        await client.enqueue("t", 1)
        await _work(dsn, _failing(Forbidden("x" * 2_000)))
    [only] = heard.of("backfill.worker.execution.outcomes")
    assert only.levelname == "ERROR"
    assert len(only.getMessage()) < 700


@pytest.mark.parametrize("how", ["none", "short", "full"])
async def test_how_much_traceback_a_retry_shows(dsn: str, heard: Heard, how: Any) -> None:
    """None, the last places, or all of it."""
    async with BackfillClient(dsn) as client:
        await client.enqueue("t", 1, max_attempts=2)
        await _work(dsn, _failing(ValueError("no")), retry_traceback=how)
    first = heard.of("backfill.worker.execution.outcomes")[0]
    place = re.search(r"\n  at .*test_logs\.py:\d+ in handler", first.getMessage())
    assert (place is not None, first.exc_info is not None) == (how == "short", how == "full")


def test_no_other_traceback() -> None:
    """Named, with what there is."""
    with pytest.raises(
        ConfigurationError, match=r"retry_traceback = 'much': expected one of \"none\", \"short\", \"full\""
    ):
        WorkerConfig("", retry_traceback="much")  # type: ignore[arg-type]


async def test_timeouts_say_where_the_attempt_stood(dsn: str, heard: Heard) -> None:
    """The exception that is logged has the place at which the handler waited."""
    tasks: TaskRegistry[Any] = TaskRegistry()

    @tasks.task("t", timeout=timedelta(milliseconds=50))
    async def handler(payload: Any) -> None:
        await _waits_for_ever()

    async with BackfillClient(dsn) as client:
        await client.enqueue("t", 1, max_attempts=1)
        await _work(dsn, tasks)
    [only] = heard.of("backfill.worker.execution.outcomes")
    assert "TimeoutError: the attempt ran longer than its timeout" in only.getMessage()
    assert "in _waits_for_ever" in logging.Formatter().format(only)


async def _waits_for_ever() -> None:
    await asyncio.Event().wait()


async def test_a_log_that_fails_costs_no_job_its_end(dsn: str, heard: Heard) -> None:
    """A filter of the program's own raises: the attempt has failed all the same, and is tried again."""

    def broken(record: logging.LogRecord) -> bool:
        if record.name == "backfill.worker.execution.outcomes":
            raise RuntimeError("a filter's own")
        return True

    heard.addFilter(broken)
    async with BackfillClient(dsn) as client:
        await client.enqueue("t", 1, max_attempts=2)
        await _work(dsn, _failing(ValueError("no")))
        [entry] = (await client.list_dlq_jobs()).jobs
    assert entry.attempts == 2


async def test_every_record_knows_its_job(dsn: str, heard: Heard) -> None:
    """Of any logger, in the handler, in its tasks and threads, and in sync handlers.

    They run beside each other; what comes after has no job.
    """
    tasks: TaskRegistry[Any] = TaskRegistry()
    together = asyncio.Barrier(2)
    left: list[asyncio.Task[None]] = []

    async def deeper(word: str) -> None:
        await asyncio.sleep(0)
        SHOP.info(word)

    @tasks.task("async")
    async def handler(payload: Any) -> None:
        async with asyncio.timeout(20):
            await together.wait()
        SHOP.info("own")
        await asyncio.gather(asyncio.create_task(deeper("task")), asyncio.to_thread(SHOP.info, "thread"))
        left.append(asyncio.create_task(deeper("late")))

    @tasks.task("sync")
    def plain(payload: Any) -> None:
        SHOP.info("sync %s", threading.current_thread() is threading.main_thread())

    async with BackfillClient(dsn) as client:
        ids = {(await client.enqueue("async", 1)).id, (await client.enqueue("async", 2)).id}
        other = (await client.enqueue("sync", 3, max_attempts=4)).id
        await _work(dsn, tasks)
        await asyncio.gather(*left)
    SHOP.info("after")
    records: list[Any] = heard.of(SHOP.name)
    told = {(one.getMessage(), one.job_id, one.task, one.attempt) for one in records}
    assert told == {
        *((word, number, "async", 1) for word in ("own", "task", "thread", "late") for number in ids),
        ("sync False", other, "sync", 1),
        ("after", None, None, None),
    }
    assert logs.fields() == {}


async def test_what_a_handler_opens_for_all_is_nobodys(dsn: str, heard: Heard) -> None:
    """The pool that the first handler opens outlives its job: what its workers say later is not of that job."""
    from backfill.storage import pool

    tasks: TaskRegistry[Any] = TaskRegistry()
    jobs: list[Any] = []

    @tasks.task("t")
    async def handler(payload: Any, ctx: WorkerContext[None]) -> None:
        await ctx.client.get_job(1)
        jobs.append(logs.CURRENT.get())

    original = pool.PatientPool.lasting
    seen: list[Any] = []

    async def lasting(self: Any) -> Any:
        seen.append(logs.CURRENT.get())
        return await original(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool.PatientPool, "lasting", lasting)
        async with BackfillClient(dsn) as client:
            await client.enqueue("t", 1)
            await _work(dsn, tasks)
    assert [job.id for job in jobs] == [1]
    assert seen
    assert set(seen) == {None}


async def test_the_contexts_logger_keeps_the_callers_extra(dsn: str, heard: Heard) -> None:
    """Both its own fields and the caller's, whose names go first."""
    tasks: TaskRegistry[Any] = TaskRegistry()

    @tasks.task("t")
    async def handler(payload: Any, ctx: WorkerContext[None]) -> None:
        ctx.logger.info("one", extra={"order": 5})
        ctx.logger.info("two", extra={"order": 6, "task": "mine"})
        ctx.logger.info("three")

    async with BackfillClient(dsn) as client:
        await client.enqueue("t", 1)
        await _work(dsn, tasks)
    records: list[Any] = heard.of("backfill.task.t")
    told = [(one.job_id, one.task, one.attempt, getattr(one, "order", None)) for one in records]
    assert told == [(1, "t", 1, 5), (1, "mine", 1, 6), (1, "t", 1, None)]


async def test_the_last_line_says_that_it_stopped(dsn: str, heard: Heard) -> None:
    """With what its attempts came to, from the library."""
    tasks: TaskRegistry[Any] = TaskRegistry()

    @tasks.task("t", retry=AT_ONCE)
    async def handler(payload: int) -> None:
        if payload == 1:
            raise ValueError
        if payload == 2:
            raise Discard
        if payload == 3:
            raise Snooze(timedelta(hours=1))

    async with BackfillClient(dsn) as client:
        for number in range(5):
            await client.enqueue("t", number, max_attempts=2)
        await _work(dsn, tasks)
    last = [record for record in heard.records if record.name.startswith("backfill")][-1]
    assert re.fullmatch(
        r"worker backfill_\w+ stopped after \d+\.\d s: attempts: 3 done, 2 failed, 1 put off, 0 given back",
        last.getMessage(),
    )
    assert vars(last).items() >= {"done": 3, "failed": 2, "put_off": 1, "given_back": 0, "left": 0}.items()


async def test_what_goes_back_is_counted(dsn: str, heard: Heard, eventually: Any) -> None:
    """An attempt that a shutdown interrupts, and a job that was claimed and not begun."""
    tasks: TaskRegistry[Any] = TaskRegistry()
    begun = asyncio.Event()

    @tasks.task("t")
    async def handler(payload: int) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with BackfillClient(dsn) as client:
        await client.enqueue("t", 1)
        async with WorkerRunner(WorkerConfig(dsn, concurrency=1, shutdown_timeout=timedelta(0)), tasks):
            await eventually(begun.is_set)
    [last] = [record for record in heard.records if "stopped after" in record.getMessage()]
    assert vars(last).items() >= {"done": 0, "failed": 0, "given_back": 1}.items()


def test_install_wants_a_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Called before the logs are set up it says so, rather than doing nothing."""
    monkeypatch.setattr("backfill.logs._all_handlers", lambda: iter(()))
    with pytest.raises(ConfigurationError, match="no logger has a handler yet"):
        logs.install()


TASKS = """
import logging
from backfill import TaskRegistry
tasks = TaskRegistry()
@tasks.task("t")
def t(payload: int) -> None:
    logging.getLogger("shop").info("told \\ud800", extra={"order": 2 ** 70})
    raise ValueError("no")
"""


@pytest.mark.parametrize("as_json", [True, False])
async def test_the_shells_log(dsn: str, tmp_path: Path, as_json: bool) -> None:
    """Every record of a job carries its fields, whatever is in it; the last line says that the worker stopped."""
    (tmp_path / "app_jobs.py").write_text(TASKS)
    words = ["worker", "app_jobs:tasks", "--retry-traceback", "short", *(["--json"] if as_json else [])]
    async with BackfillClient(dsn) as client:
        await client.enqueue("t", 1)
        with running(shell(*words), environment={"DATABASE_URL": dsn}, folder=tmp_path) as worker:
            worker.wait_for("failed in attempt 1")
            worker.process.send_signal(signal.SIGTERM)
            assert worker.end() == 0
    lines = worker.output.splitlines()
    if not as_json:
        assert any(re.search(r"INFO shop: told .* job_id=1 task=t attempt=1", line) for line in lines)
        assert any("ValueError: no" in line and " WARNING " in line for line in lines)
        assert "stopped after" in lines[-1]
        assert "job_id" not in lines[-1]
        return
    entries = [json.loads(line) for line in lines]
    [told] = [entry for entry in entries if entry["logger"] == "shop"]
    assert told.items() >= {"job_id": 1, "task": "t", "attempt": 1}.items()
    assert entries[-1].items() >= {"done": 0, "failed": 1, "given_back": 0}.items()
    assert "stopped after" in entries[-1]["message"]
