"""Reserved keys against a model of them: whatever is done in whatever order, each call gives what the model says."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

import psycopg
from hypothesis import HealthCheck, given, settings

from backfill.jobs import EnqueueStatus
from backfill.sync import Client

from strategies import reserving_steps

DAY = timedelta(days=1)
EMPTY = "truncate graphile_worker._private_jobs, graphile_worker.backfill_reservations"


@dataclass
class Model:
    """What is known of the keys.

    Attributes:
        waiting: by key, the id of the job that waits, or None.
        held: by key, the id of the job for which it is reserved.
        over: the keys whose time is over.
    """

    waiting: dict[str, int] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)
    over: set[str] = field(default_factory=set)

    def reserved(self, key: str) -> int | None:
        """The id of the job for which a key is reserved now."""
        return None if key in self.over else self.held.get(key)

    def free(self, key: str, job: int | None) -> None:
        """Free a key after a removal: by its key (no job), or of one job."""
        if job is None or self.held.get(key) == job:
            self.held.pop(key, None)
            self.over.discard(key)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(steps=reserving_steps)
def test_each_call_gives_what_the_model_says(dsn: str, steps: list[tuple[str, str]]) -> None:
    """Adding with and without a span, undone transactions, ends and removals of all kinds, and time that runs out."""
    model = Model()
    with Client(dsn) as client, psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(EMPTY)
        for deed, key in steps:
            _step(client, connection, model, deed, key)
        held = connection.execute("select job_key, job_id from graphile_worker.backfill_reservations").fetchall()
        assert dict(held) == model.held
        waiting = connection.execute(
            "select key, id from graphile_worker._private_jobs where key is not null"
        ).fetchall()
        assert dict(waiting) == model.waiting


def _step(client: Client, connection: psycopg.Connection, model: Model, deed: str, key: str) -> None:
    there = model.waiting.get(key)
    if deed == "add":
        _add(client, model, key)
    elif deed == "undo":
        with connection.transaction(force_rollback=True):
            done = client.enqueue("t", job_key=key, unique_for=DAY, connection=connection)
            assert (done.status is EnqueueStatus.KEPT) == (model.reserved(key) is not None)
    elif deed == "plain":
        model.waiting[key] = client.enqueue("t", job_key=key).id
        assert there in (None, model.waiting[key])
    elif deed == "over":
        over = "update graphile_worker.backfill_reservations set reserved_until = now() where job_key = %s"
        connection.execute(over, [key])
        model.over |= {key} & model.held.keys()
    elif deed == "remove":
        removed = client.remove_job(key)
        assert (None if removed is None else removed.id) == model.waiting.pop(key, None)
        model.free(key, None)
    elif there is not None:
        if deed == "complete":
            client.complete_jobs([there])
        elif deed == "deleted":  # as a worker does when it completes the job or makes it a dead letter
            connection.execute("delete from graphile_worker._private_jobs where id = %s", [there])
        elif deed == "remove_id":
            assert client.remove_job(id=there) is not None
            model.free(key, there)
        else:
            client.cancel(there)
            model.free(key, there)
        del model.waiting[key]


def _add(client: Client, model: Model, key: str) -> None:
    held, there = model.reserved(key), model.waiting.get(key)
    done = client.enqueue("t", job_key=key, unique_for=DAY)
    if held is not None:
        assert (done.status, done.id, done.job.key) == (EnqueueStatus.KEPT, held, key)
        assert done.in_queue == (held == there)
        return
    assert done.status is (EnqueueStatus.ADDED if there is None else EnqueueStatus.REPLACED)
    assert there in (None, done.id)
    assert done.reserved_until is not None
    model.waiting[key] = model.held[key] = done.id
    model.over.discard(key)
