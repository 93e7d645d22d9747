"""Rows that PostgreSQL can hold and Python cannot fail alone: their neighbours of the same claim run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, LiteralString

import pytest

from backfill import BackfillClient, TaskRegistry, WorkerConfig, WorkerContext, WorkerRunner

from reading import rows

ODD_PAYLOADS: dict[str, LiteralString] = {
    "surrogate": r"""{"text": "\ud800"}""",
    "huge": """{"text": 1e999999}""",
    "deep": "[" * 2000 + "]" * 2000,
    "not an object": "[1, 2]",
    "another field": """{"other": "x"}""",
    "another type": """{"text": 5}""",
}
ODD_COLUMNS: dict[str, LiteralString] = {
    "run_at": "run_at = '-infinity'",
    "created_at": "created_at = 'infinity'",
    "before": "created_at = '0044-03-15 BC'",
}


@dataclass
class Text:
    """What the handler asks for."""

    text: str


async def test_unreadable_rows_fail_alone(dsn: str) -> None:
    """Payloads that no decoder takes, and times beyond Python's: each has its own last_error; the good ones are run.

    The claim writes `updated_at`, so what stood there before is no matter.
    """
    ran: list[str] = []
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("text")
    async def text(payload: Text) -> None:
        ran.append(payload.text)

    async with BackfillClient(dsn) as client:
        for number in range(5):
            await client.enqueue("text", {"text": f"good {number}"})
        await client.enqueue("text", {"text": "nul"}, job_key="nul")
        for name in (*ODD_PAYLOADS, *ODD_COLUMNS):
            await client.enqueue("text", {"text": name}, job_key=name)
    await rows(dsn, r"""update graphile_worker._private_jobs set payload = '{"text": "\u0000"}' where key = 'nul'""")
    for name, payload in ODD_PAYLOADS.items():
        await rows(dsn, "update graphile_worker._private_jobs set payload = %s where key = %s", payload, name)
    await rows(dsn, "alter table graphile_worker._private_jobs disable trigger user")
    await rows(dsn, "update graphile_worker._private_jobs set updated_at = '20000-01-01' where key is null")
    for name, change in ODD_COLUMNS.items():
        await rows(dsn, "update graphile_worker._private_jobs set " + change + " where key = %s", name)
    processed = await WorkerRunner(WorkerConfig(dsn), tasks).process_available_jobs()
    assert processed == 6 + len(ODD_PAYLOADS) + len(ODD_COLUMNS)
    assert sorted(ran) == ["\0", *(f"good {number}" for number in range(5))]
    left = dict(await rows(dsn, "select key, last_error from graphile_worker._private_jobs where attempts = 1"))
    assert left.keys() == ODD_PAYLOADS.keys() | ODD_COLUMNS.keys()
    for name, error in left.items():
        assert "PayloadDecodeError" in error, name
    assert "-infinity" in left["run_at"]
    assert await rows(dsn, "select id from graphile_worker._private_jobs where locked_at is not null") == []


@pytest.mark.parametrize("error", ["x" * 3_000_000, "\N{SNAKE}" * 10, "a\0b\ud800"])
async def test_any_error_text_can_be_kept(dsn: str, error: str) -> None:
    """Long ones are cut, and what PostgreSQL cannot hold is replaced."""
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("fail")
    async def fail(payload: Any, ctx: WorkerContext[None]) -> None:
        raise RuntimeError(error)

    async with BackfillClient(dsn) as client:
        await client.enqueue("fail", {})
    assert await WorkerRunner(WorkerConfig(dsn), tasks).process_available_jobs() == 1
    [[kept]] = await rows(dsn, "select last_error from graphile_worker._private_jobs")
    assert kept.startswith("RuntimeError: ")
    assert len(kept) <= 1_000_000
