"""A secret in payloads and passwords, through many failures: no log line above DEBUG and no text of ours holds it."""

from __future__ import annotations

import dataclasses
import logging
import traceback
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import msgspec
import psycopg
import pydantic
import pytest

from backfill import BackfillClient, DlqFilter, JobSpec, NewJob, TaskRegistry, WorkerConfig, WorkerRunner
from backfill.cli.common import explain

from reading import rows

SECRET = "4111-SECRET"
JOBS = "graphile_worker._private_jobs"
DLQ = "graphile_worker.backfill_dlq"
ENDS = "graphile_worker.backfill_ends"
RAISES = f"""
create function public.refuse() returns trigger language plpgsql as $$
begin
  raise exception 'refused' using detail = new::text, hint = '{SECRET}';
end $$
"""
EXECUTES = "execute function refuse()"
Call = Callable[[BackfillClient], Awaitable[object]]


@dataclasses.dataclass
class Order:
    """Read by msgspec."""

    number: int


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    """The same."""

    number: int


class Card(pydantic.BaseModel):
    """Read by pydantic."""

    number: int


@pytest.fixture
def texts(caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    """All that was logged at INFO and above, with tracebacks."""
    caplog.set_level(logging.DEBUG)
    formatter = logging.Formatter("%(name)s %(levelname)s %(message)s")
    return lambda: "\n".join(formatter.format(one) for one in caplog.records if one.levelno >= logging.INFO)


async def _work(dsn: str, tasks: TaskRegistry[Any]) -> None:
    await WorkerRunner(WorkerConfig(dsn, poll_interval=timedelta(milliseconds=50)), tasks).process_available_jobs()


def _raising(error: Callable[[], BaseException]) -> TaskRegistry[Any]:
    tasks: TaskRegistry[Any] = TaskRegistry()

    @tasks.task("t", keep=timedelta(hours=1))
    async def handler(payload: Any) -> Any:
        raise error()

    return tasks


async def _refusal(call: Awaitable[object]) -> BaseException:
    with pytest.raises(Exception) as caught:
        await call
    return caught.value


@pytest.mark.parametrize(
    "refusal",
    [
        f"alter table {JOBS} add constraint nope check (payload::text not like '%SECRET%')",
        f"create unique index nope on {JOBS} ((payload::text), (id is not null))",
        f"{RAISES}; create trigger nope before insert on {JOBS} for each row execute function refuse()",
        f"{RAISES}; create constraint trigger nope after insert on {JOBS} initially deferred for each row {EXECUTES}",
    ],
    ids=["check", "unique", "trigger", "deferred"],
)
async def test_what_producers_are_told(dsn: str, texts: Callable[[], str], refusal: str) -> None:
    """By each verb that writes jobs, on the client's connections and on the caller's.

    `diag` has all that the server said.
    """
    payload = {"card": SECRET}
    calls: list[Call] = [
        lambda c: c.enqueue("t", payload),
        lambda c: c.enqueue("t", payload, job_key="k"),
        lambda c: c.enqueue_bulk("t", [payload, payload]),
        lambda c: c.enqueue_bulk([NewJob("t", payload, JobSpec(job_key="k"))]),
    ]
    async with BackfillClient(dsn) as client:
        if "unique" in refusal:
            await client.enqueue("t", payload)
        await rows(dsn, refusal)
        for call in calls:
            error = await _refusal(call(client))
            printed = "".join(traceback.format_exception(error))
            assert SECRET not in printed, printed
            assert SECRET not in explain(error)[0]  # type: ignore[arg-type]
            assert "nope" in printed or "refused" in printed
        async with await psycopg.AsyncConnection.connect(dsn) as connection:

            async def both() -> None:
                await client.enqueue("t", payload, connection=connection)
                await connection.commit()

            if "deferred" not in refusal:
                error = await _refusal(both())
                assert SECRET not in "".join(traceback.format_exception(error))
                assert isinstance(error, psycopg.Error)
                assert SECRET in (error.diag.message_detail or "")
    assert SECRET not in texts()


@pytest.mark.parametrize(
    ("table", "condition"),
    [
        (DLQ, "payload::text not like '%SECRET%'"), (ENDS, "error is null"), (ENDS, "result is null"),
        (JOBS, "last_error is null"),
    ],
)  # fmt: skip
async def test_ends_that_are_refused(dsn: str, texts: Callable[[], str], table: str, condition: str) -> None:
    """What a worker says of ends that the database refuses, and what it writes in their place."""
    async with BackfillClient(dsn) as client:
        await rows(dsn, f"alter table {table} add constraint nope check ({condition})")
        await client.enqueue("t", {"card": SECRET}, max_attempts=1)
        await client.enqueue("t", {"card": SECRET}, max_attempts=2)
        await client.enqueue("done", {"card": SECRET})
        tasks = _raising(lambda: ValueError("no"))

        @tasks.task("done", keep=timedelta(hours=1))
        async def done(payload: Any) -> Any:
            return payload

        await _work(dsn, tasks)
        assert SECRET not in texts()
        await rows(dsn, f"alter table {table} drop constraint nope")
        await _nothing_written(dsn)
        await rows(dsn, f"delete from {JOBS}")


async def _nothing_written(dsn: str) -> None:
    """No error's text that the worker has written has it."""
    for query in (
        f"select last_error from {JOBS}",
        f"select last_error::text from {DLQ}",
        f"select error::text from {ENDS}",
    ):
        for (text,) in await rows(dsn, query):
            assert SECRET not in (text or ""), text


@pytest.mark.parametrize("payload_type", [Order, Strict, Card, int, list[Card]])
@pytest.mark.parametrize("attempts", [1, 2])
async def test_payloads_that_cannot_be_read(
    dsn: str, texts: Callable[[], str], payload_type: Any, attempts: int
) -> None:
    """Neither the log, nor the dead letter, nor whoever awaits the result is told what stood there."""
    tasks: TaskRegistry[Any] = TaskRegistry()

    async def handler(payload: Any) -> None: ...

    handler.__annotations__["payload"] = payload_type
    tasks.task("t", keep=timedelta(hours=1))(handler)
    async with BackfillClient(dsn) as client:
        outcome = await client.enqueue("t", {"number": SECRET, SECRET: SECRET}, max_attempts=attempts)
        await _work(dsn, tasks)
        assert "PayloadDecodeError: payload: " in texts()
        assert SECRET not in texts()
        await _nothing_written(dsn)
        if attempts == 1:
            error = await _refusal(client.result(outcome))
            assert SECRET not in "".join(traceback.format_exception(error))


async def test_a_handlers_own_database_errors(dsn: str, texts: Callable[[], str]) -> None:
    """What is written and logged of them is their primary message; the last attempt's exception is logged as it is."""
    async with BackfillClient(dsn) as client:
        await rows(dsn, "create table public.cards (number text check (number not like '%SECRET%'))")

        tasks: TaskRegistry[Any] = TaskRegistry()

        @tasks.task("t")
        async def handler(payload: Any) -> None:
            async with await psycopg.AsyncConnection.connect(dsn) as connection:
                await connection.execute("insert into public.cards values (%s)", [payload["card"]])

        @tasks.task("wrapped")
        async def wrapped(payload: Any) -> None:
            try:
                await handler(payload)
            except psycopg.Error as error:
                raise RuntimeError("the card is refused") from error

        await client.enqueue("t", {"card": SECRET}, max_attempts=2)
        await client.enqueue("wrapped", {"card": SECRET}, max_attempts=2)
        await _work(dsn, tasks)
    assert 'CheckViolation: new row for relation "cards" violates check constraint' in texts()
    assert "RuntimeError: the card is refused" in texts()
    assert SECRET not in texts()
    await _nothing_written(dsn)


async def test_requeues_that_are_refused(dsn: str, texts: Callable[[], str]) -> None:
    """What `DlqRequeueError` says of each entry."""
    async with BackfillClient(dsn) as client:
        await client.enqueue("t", {"card": SECRET}, max_attempts=1)
        await _work(dsn, _raising(lambda: ValueError("no")))
        await rows(dsn, f"alter table {JOBS} add constraint nope check (payload::text not like '%SECRET%')")
        [entry] = (await client.list_dlq_jobs()).jobs
        for call in (client.requeue_dlq_job(entry.id), client.requeue_dlq_jobs(DlqFilter(task_identifier="t"))):
            error = await _refusal(call)
            printed = "".join(traceback.format_exception(error))
            assert "nope" in printed
            assert SECRET not in printed
    assert SECRET not in texts()


async def test_results_that_cannot_be_kept(dsn: str, texts: Callable[[], str]) -> None:
    """One that is no JSON is told by its place and its type."""
    tasks: TaskRegistry[Any] = TaskRegistry()

    class Odd:
        def __repr__(self) -> str:
            return SECRET

    @tasks.task("t", keep=timedelta(hours=1))
    async def handler(payload: Any) -> Any:
        return {"card": Odd()}

    async with BackfillClient(dsn) as client:
        await client.enqueue("t", {"card": SECRET})
        await _work(dsn, tasks)
    assert "its result cannot be kept: InvalidPayloadError: " in texts()
    assert SECRET not in texts()
    await _nothing_written(dsn)


@pytest.mark.parametrize("password", [SECRET, "s3cr3t%21", "p@ss"])
async def test_passwords_of_servers_that_refuse(texts: Callable[[], str], password: str) -> None:
    """Neither the client nor the worker tells the password of a server that is not there."""
    from urllib.parse import quote

    dsn = f"postgresql://user:{quote(password, safe='')}@127.0.0.1:1/nowhere"
    errors = [
        await _refusal(BackfillClient(dsn).open()),
        await _refusal(WorkerRunner(WorkerConfig(dsn), _raising(ValueError)).process_available_jobs()),
    ]
    for error in errors:
        assert password not in "".join(traceback.format_exception(error))
    assert password not in texts()
