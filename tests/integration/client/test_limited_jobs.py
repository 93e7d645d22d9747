"""Jobs of tasks with a limit by a field of their payload: every way in writes the flags that name the value."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, LiteralString

import msgspec
import psycopg
import pydantic
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from backfill import (
    BackfillClient,
    BeforeJobSchedule,
    ContinueWith,
    HookRegistry,
    JobKeyMode,
    JobScheduleResult,
    JobSpec,
    Limit,
    NewJob,
    Priority,
    Queue,
    Rate,
    TaskRegistry,
    enqueue_bulk,
    enqueue_critical,
    enqueue_serial,
)
from backfill.payloads import encode

from plugins.roles import NewRole
from reading import rows

FLAGS: LiteralString = """
    select coalesce((select array_agg(flag order by flag) from jsonb_object_keys(flags) as flag), '{}')::text[]
    from graphile_worker._private_jobs order by id"""
VALUES: LiteralString = """
    select graphile_worker.backfill_limit_value(flags), coalesce(flags ? 'backfill.limited', false)
    from graphile_worker._private_jobs order by id"""

tasks = TaskRegistry()


@dataclass
class Report:
    """A payload of a tenant's."""

    tenant: str | int
    pages: int = 1


class Order(msgspec.Struct, rename="camel"):
    """A payload whose fields are written under other names."""

    customer_id: int


class Mail(pydantic.BaseModel):
    """A model with an alias."""

    sender_host: str = pydantic.Field(alias="senderHost")


@tasks.task("report", limit=Limit(2, by="tenant"), priority=4)
async def report(_: Report) -> None:
    """By a field."""


@tasks.task("ship", rate=Rate(5, by="customerId"))
async def ship(_: Order) -> None:
    """By a field with another name in JSON."""


@tasks.task("mail", limit=Limit(1, by="senderHost"))
async def mail(_: Mail) -> None:
    """By a field's alias."""


@tasks.task("plain", limit=3)
async def plain(_: dict[str, Any]) -> None:
    """All together."""


@tasks.task("queued", limit=Limit(1, by="tenant"), queue=lambda made: Queue.serial_for("tenant", made.tenant))
async def queued(_: Report) -> None:
    """With a queue of its own, too."""


def of(*values: str) -> list[tuple[list[str]]]:
    """The flags of jobs that count for these values and have no others; an empty text stands for none."""
    return [([*(["backfill.limit:" + value, "backfill.limited"] if value else [])],) for value in values]


@asynccontextmanager
async def opened(dsn: str, **keywords: Any) -> AsyncIterator[BackfillClient]:
    """An open client."""
    async with BackfillClient(dsn, **keywords) as client:
        yield client


@pytest.fixture(params=["owner", "producer"])
async def client(request: pytest.FixtureRequest, dsn: str, role: NewRole) -> AsyncIterator[BackfillClient]:
    """A client that writes to the tables, and one that only calls the functions for producers."""
    async with opened(dsn if request.param == "owner" else role("producer")) as client:
        yield client


async def test_one_job_has_the_flags_of_its_value(dsn: str, client: BackfillClient) -> None:
    """Of whatever type its payload is; what a job counts together with all others has no flags."""
    await client.enqueue(report.job(Report("a")))
    await client.enqueue(report, Report(7))
    await client.enqueue(ship, Order(12))
    await client.enqueue(mail.job(Mail(senderHost="x.example")))
    await client.enqueue(plain, {"tenant": "a"})
    await client.enqueue(queued, Report("q"))
    assert await rows(dsn, FLAGS) == of("a", "7", "12", "x.example", "", "q")


async def test_a_name_alone_needs_the_path(dsn: str, client: BackfillClient) -> None:
    """Where only a task's name is given, `limit_by` says what a registered task would."""
    await client.enqueue("report", {"tenant": "a"})
    await client.enqueue("report", {"tenant": "a"}, limit_by="tenant", flags=["mine"])
    await client.enqueue(NewJob("report", {"who": {"id": True}}, JobSpec(limit_by="who.id")))
    await enqueue_critical(client, "report", {"tenant": "c"}, limit_by="tenant")
    await enqueue_serial(client, "report", {"tenant": "d"}, Queue.serial("q"), Priority.BULK_LOW, limit_by="tenant")
    expected = of("", "a", "true", "c", "d")
    expected[1][0].append("mine")
    found = await rows(dsn, FLAGS)
    assert [[flag for flag in flags if not flag.startswith("backfill.retry:")] for (flags,) in found] == [
        flags for (flags,) in expected
    ]


async def test_each_job_of_a_bulk_call_has_its_own(dsn: str, client: BackfillClient) -> None:
    """By its task, by jobs of many tasks, and by name."""
    await client.enqueue_bulk(report, [Report("a"), Report("b"), Report("a"), Report("")])
    await client.enqueue_bulk([report.job(Report("c")), plain.job({}), ship.job(Order(1)), queued.job(Report("d"))])
    await enqueue_bulk(client, "named", [{"x": "e"}, {"x": None}, {}], limit_by="x")
    await client.enqueue_bulk("unknown", [{"x": "e"}])
    assert sorted(await rows(dsn, FLAGS)) == sorted(of("a", "b", "a", "", "c", "", "1", "d", "e", "", "", ""))


async def test_jobs_with_keys_have_them_too(dsn: str, client: BackfillClient) -> None:
    """One by one and many at once, in each mode; what replaces a payload replaces its value."""
    for mode in JobKeyMode:
        spec = JobSpec(job_key=mode.value, job_key_mode=mode)
        await client.enqueue(report.job(Report("a"), spec))
        await client.enqueue_bulk([report.job(Report("b"), spec), report.job(Report("c"), spec)])
    kept = {JobKeyMode.UNSAFE_DEDUPE: "a"}
    assert await rows(dsn, FLAGS) == of(*(kept.get(mode, "c") for mode in JobKeyMode))


async def test_a_job_that_is_put_off_keeps_them(dsn: str) -> None:
    """Rescheduling changes neither the payload nor the flags."""
    async with opened(dsn) as client:
        added = await client.enqueue(report, Report("a"))
        await client.reschedule_jobs([added.id], priority=9)
        assert await rows(dsn, FLAGS) == of("a")


async def test_a_requeued_dead_letter_keeps_them(dsn: str) -> None:
    """A copy of all flags of a job does not: the marks are those of the first job alone."""
    async with opened(dsn) as client:
        added = await client.enqueue(report, Report("a"))
        entry = await client.add_to_dlq(added.job, "by hand")
        await rows(dsn, "delete from graphile_worker._private_jobs returning 1")
        job = await client.requeue_dlq_job(entry.id)
        assert sorted(job.flags) == sorted(["backfill.limit:a", "backfill.limited", f"backfill.dead_letter:{entry.id}"])
        await rows(dsn, "delete from graphile_worker._private_jobs returning 1")
        await client.enqueue("other", {"tenant": "b"}, flags=job.flags)
        assert await rows(dsn, FLAGS) == of("")


class Changes:
    """A plugin that changes each payload."""

    def register(self, hooks: HookRegistry) -> None:
        """Ask about each job."""
        hooks.on(BeforeJobSchedule, self.change)

    def change(self, event: BeforeJobSchedule) -> JobScheduleResult:
        """Another tenant."""
        return ContinueWith(Report(f"not {event.payload.tenant}"))


async def test_the_flags_follow_a_payload_that_an_interceptor_changed(dsn: str) -> None:
    """Singly and in bulk."""
    async with opened(dsn, plugins=[Changes()]) as client:
        await client.enqueue(report, Report("a"))
        await client.enqueue_bulk(report, [Report("b"), Report("c")])
    assert await rows(dsn, FLAGS) == of("not a", "not b", "not c")


_TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=130)
_VALUES = (
    _TEXTS
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.booleans()
    | st.none()
    | st.lists(st.integers(0, 9), max_size=2)
    | st.just({"a": {"b": 1}})
)
_TREES = _VALUES | _VALUES.map(lambda value: {"a": value}) | _VALUES.map(lambda value: {"a": {"b": value}})


@settings(max_examples=40)
@given(st.lists(_TREES.map(lambda tree: {"a": tree, "z": 1}), min_size=1, max_size=8), st.sampled_from(["a", "a.a.b"]))
@example([{"a": "x" * 100}, {"a": "x" * 101}, {"a": "\U0001f600" * 101}, {"a": 'q"\\\n'}, {"a": "sha256:x"}], "a")
async def test_all_ways_agree_on_the_value(dsn: str, payloads: list[Any], path: str) -> None:
    """One job, bulk, the function for producers in SQL, and the function that the index calls."""
    await rows(dsn, "delete from graphile_worker._private_jobs returning 1")
    async with opened(dsn) as client:
        await client.enqueue_bulk("t", payloads, limit_by=path)
        for payload in payloads:
            await client.enqueue("t", payload, limit_by=path)
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        for payload in payloads:
            await connection.execute(
                """select graphile_worker.add_job('t', %(payload)s::json,
                flags => graphile_worker.backfill_limit_flags(%(payload)s::json, %(path)s))""",
                {"payload": encode(payload).decode(), "path": path},
            )
    found = await rows(dsn, VALUES)
    third = len(payloads)
    assert found[:third] == found[third : 2 * third] == found[2 * third :]
    assert [value for value, _ in found[:third]] == [_expected(payload, path) for payload in payloads]
    assert all(marked == (value != "") for value, marked in found)


def _expected(payload: Any, path: str) -> str:
    for name in path.split("."):
        payload = payload.get(name) if isinstance(payload, dict) else None
    if payload is None or isinstance(payload, (dict, list)):
        return ""
    value = payload if isinstance(payload, str) else encode(payload).decode()
    return value if len(value) <= 100 else f"sha256:{sha256(value.encode()).hexdigest()}"
