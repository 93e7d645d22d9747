"""What a task says of its jobs, what goes before it, and registries that take in others."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from backfill import InvalidJobError, JobSpec, NewJob, Queue, RetryPolicy, TaskDefinitionError, TaskRegistry
from backfill.client.bulk.items import Encoder
from backfill.client.prepare import JobShape, shape_of, spec_of
from backfill.jobs import UNSAID


@dataclass
class Mail:
    """A payload with something to tell customers apart."""

    customer: int


tasks = TaskRegistry()


@tasks.task("mail", priority=5, queue=lambda mail: Queue.serial_for("customer", mail.customer), max_attempts=3)
async def mail(_: Mail) -> None:
    """Its queue depends on its payload."""


@tasks.task("night", queue=Queue.serial("night"), delay=timedelta(hours=1), retry=RetryPolicy(max_attempts=9))
async def night() -> None:
    """Its queue is fixed."""


def _single(job: NewJob[Any], spec: JobSpec | None = None, **keywords: Any) -> JobShape:
    """As `enqueue` has it."""
    return shape_of(job.task, spec_of(job, spec, keywords), job.default_max_attempts, job.source)


def _bulk(job: NewJob[Any], spec: JobSpec | None = None, **keywords: Any) -> JobShape:
    """As `enqueue_bulk` has it."""
    rows: list[Any] = []
    Encoder(None, (spec or UNSAID).merged(**keywords)).encode(iter([job]), rows)
    return rows[0][0]


@pytest.mark.parametrize("form", [_single, _bulk])
def test_a_tasks_word_holds_where_nobody_says_otherwise(form: Callable[..., JobShape]) -> None:
    """Priority, queue, number of runs and delay; singly and in bulk alike."""
    shape = form(mail.job(Mail(7)))
    assert (shape.priority, shape.queue, shape.max_attempts, shape.delay) == (5, "customer:7", 3, None)
    shape = form(night.job())
    assert (shape.priority, shape.queue, shape.max_attempts, shape.delay) == (0, "night", 9, timedelta(hours=1))


@pytest.mark.parametrize("form", [_single, _bulk])
def test_specs_and_keywords_go_before_it(form: Callable[..., JobShape]) -> None:
    """A job's own spec, the call's spec and keywords; a time of its own takes the task's delay away."""
    at = datetime(2027, 1, 1, tzinfo=UTC)
    assert form(mail.job(Mail(7)), priority=-1).priority == -1
    assert form(mail.job(Mail(7), JobSpec(queue=Queue.serial("x")))).queue == "x"
    assert form(mail.job(Mail(7)), JobSpec(max_attempts=1)).max_attempts == 1
    assert form(mail.job(Mail(7)), retry=RetryPolicy(max_attempts=4)).max_attempts == 4
    shape = form(night.job(), run_at=at)
    assert (shape.run_at, shape.delay) == (at, None)


def test_payloads_in_bulk_each_have_their_queue() -> None:
    """Given with the task, as items or as jobs of it."""
    rows: list[Any] = []
    Encoder(mail, UNSAID).encode(iter([Mail(1), mail.job(Mail(2)), Mail(3)]), rows)
    assert [shape.queue for shape, _ in rows] == ["customer:1", "customer:2", "customer:3"]


def test_by_name_nothing_is_known() -> None:
    """The task's word does not hold for a name."""
    shape = _single(NewJob("mail", {"customer": 1}))
    assert (shape.priority, shape.queue, shape.max_attempts) == (0, None, 8)


def test_a_job_that_was_pickled_keeps_its_tasks_word() -> None:
    """Though the task itself, which holds a function, is not part of it."""
    job = pickle.loads(pickle.dumps(mail.job(Mail(7))))
    shape = _single(job)
    assert (shape.priority, shape.queue, shape.max_attempts) == (5, "customer:7", 3)
    assert job.max_attempts == 3


def test_what_is_no_queue_is_refused() -> None:
    """At registration, or where the function is asked; None is no serial queue."""
    registry = TaskRegistry()
    with pytest.raises(InvalidJobError, match="queue"):
        registry.task("t", queue="plain")  # type: ignore[arg-type]
    text = registry.task("text", queue=lambda _: "plain")(lambda payload: None)  # type: ignore[arg-type, return-value]
    with pytest.raises(InvalidJobError, match="names as its queue"):
        text.job(1)
    assert _single(registry.task("none", queue=lambda _: None)(lambda payload: None).job(1)).queue is None


def test_a_function_of_the_queue_that_fails_names_its_task() -> None:
    """Its own error goes on, so a note says where it stood."""

    @TaskRegistry().task("mail", queue=lambda payload: Queue.serial(payload.custmer))
    async def send(payload: Mail) -> None: ...

    with pytest.raises(AttributeError) as caught:
        send.job(Mail(1))
    assert caught.value.__notes__ == ["raised by the function that task 'mail' names as its queue"]


def test_a_registry_takes_in_another() -> None:
    """Its tasks are known by their names, or with a prefix, aliases too; the other keeps its own."""
    other: TaskRegistry[None] = TaskRegistry()

    @other.task("resize", aliases=["scale"], priority=3)
    async def resize(_: int) -> None: ...

    whole: TaskRegistry[None] = TaskRegistry()
    whole.include(other)
    whole.include(other, "images.")
    assert whole.identifiers() == ("resize", "scale", "images.resize", "images.scale")
    assert whole.get("resize") is resize
    prefixed = whole.get("images.scale")
    assert prefixed is not None
    assert prefixed.job(1).task == "images.resize"
    assert _single(prefixed.job(1)).priority == 3
    assert other.identifiers() == ("resize", "scale")


def test_a_registry_refuses_what_it_cannot_take_in() -> None:
    """A name that is taken (then nothing of the other is taken), a lifespan of its own, a name that grew too long."""
    one: TaskRegistry[None] = TaskRegistry()
    other: TaskRegistry[None] = TaskRegistry()
    for registry, names in ((one, ["b"]), (other, ["a", "b"])):
        for name in names:
            registry.task(name)(lambda: None)
    with pytest.raises(TaskDefinitionError, match="'b' is registered already"):
        one.include(other)
    assert one.identifiers() == ("b",)
    with pytest.raises(InvalidJobError, match="task"):
        one.include(other, "x" * 128)

    @asynccontextmanager
    async def lifespan(_: Any) -> Any:
        yield 1

    with pytest.raises(TaskDefinitionError, match="lifespan"):
        one.include(TaskRegistry(lifespan=lifespan))


def test_the_name_of_a_things_queue_is_its_own() -> None:
    """No two pairs give one name, and nothing stands for nobody."""
    assert Queue.serial_for("user", "b:c").name == "user:b:c"
    for entity, number in (("a:b", "c"), (1, 2), ("user", None)):
        with pytest.raises(InvalidJobError, match=r"^(entity|id) "):
            Queue.serial_for(entity, number)  # type: ignore[arg-type]
