"""The design's sample of the face, which tests/typing checks, does on a database what it says."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from types import ModuleType
from typing import Any

import pytest

from backfill import BackfillClient, EnqueueStatus, Priority, WorkerContext

from places import TESTS
from plugins.waiting import Eventually
from reading import rows, value

FACE = TESTS / "typing" / "face.py"


@pytest.fixture
def face(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The sample as a module, loaded anew."""
    spec = importlib.util.spec_from_file_location("face", FACE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "face", module)
    spec.loader.exec_module(module)
    return module


async def test_the_face_produces_and_works(dsn: str, face: ModuleType) -> None:
    """Each way to enqueue adds its job; the worker runs those that are due, with the lifespan's dependencies."""
    outcomes = await face.produce(dsn, ["ada", "grace"])
    assert [getattr(outcome, "status", None) for outcome in outcomes] == [
        EnqueueStatus.ADDED,
        EnqueueStatus.ADDED,
        EnqueueStatus.ADDED,
        None,
        None,
        EnqueueStatus.ADDED,
    ]
    assert [outcome.written for outcome in outcomes if not hasattr(outcome, "status")] == [2, 2]
    assert await rows(
        dsn,
        """select key, priority, max_attempts, run_at > now() from graphile_worker.jobs
           where key is not null or priority <> 0 order by id""",
    ) == [
        ("welcome:123", 0, 3, True),
        (None, Priority.FAST_HIGH, 8, False),
        ("welcome_email_123", Priority.FAST_HIGH, 12, False),
    ]
    assert await face.work(face.make_runner(dsn)) == 7
    recipients = [name for name in face.SENT if name != "closed"]
    assert set(recipients[:2]) == {"by name", "critical"}
    assert sorted(recipients[2:]) == ["ada", "ada", "grace", "grace", "in a transaction"]
    assert face.SENT.count("closed") == 3
    assert await rows(dsn, "select key from graphile_worker.jobs") == [("welcome:123",)]


async def test_the_runner_fits_a_task_group(dsn: str, face: ModuleType, eventually: Eventually) -> None:
    """Cancelled in a group, it drains, and the group ends without an error."""
    ready = asyncio.Event()
    group = asyncio.create_task(face.work_in_a_group(face.make_runner(dsn), ready))
    await eventually(lambda: value(dsn, "select count(*) from graphile_worker.backfill_workers"))
    ready.set()
    await group
    assert await value(dsn, "select count(*) from graphile_worker.backfill_workers") == 0
    assert face.SENT == ["closed"]


async def test_a_task_is_called_directly(face: ModuleType) -> None:
    """`await send_email(email, ctx)` runs the handler, here, with the context given."""
    deps: Any = face.Deps(face.Http(face.SENT))
    job: Any = None
    context = WorkerContext(job=job, worker_id="w", deps=deps, client=BackfillClient("postgresql:///"))
    await face.call_directly(context)
    assert face.SENT == ["direct"]
