"""Schedules of a registry: by text, by objects, by the decorator; each identifier once; taken along when included."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from backfill import (
    ConfigurationError,
    InvalidJobError,
    InvalidPayloadError,
    TaskDefinitionError,
    TaskRegistry,
    WorkerConfig,
    WorkerRunner,
)
from backfill.cron import CrontabParseError, Dst, Missed, Overlap, Schedule, parse_crontab
from backfill.specs import JobKeyMode
from backfill.storage.schedules import crontab_of


@dataclass
class Report:
    """A payload of a type."""

    to: str
    pages: int = 1


def lines(tasks: TaskRegistry[Any]) -> list[str]:
    """The schedules of a registry as lines."""
    return [str(schedule) for schedule in tasks.schedules]


def test_a_registry_takes_a_crontab_or_schedules() -> None:
    """Both mean the same, and a registry without any has none."""
    text = "*/5 * * * * sync ?fill=1h\n# a comment\n\n@daily report"
    assert TaskRegistry(crontab=text).schedules == parse_crontab(text)
    assert TaskRegistry(crontab=parse_crontab(text)).schedules == parse_crontab(text)
    assert TaskRegistry(deps=int, crontab=text).schedules == parse_crontab(text)
    assert TaskRegistry().schedules == TaskRegistry(crontab="").schedules == ()


def test_schedules_are_added_as_objects_texts_and_lists() -> None:
    """`schedule` takes any number of each, and keeps their order."""
    tasks: TaskRegistry[None] = TaskRegistry(crontab="@daily a")
    tasks.schedule(Schedule("b", "@hourly"), "@hourly c\n@hourly d", [Schedule("e", every=timedelta(minutes=1))])
    tasks.schedule()
    assert [schedule.identifier for schedule in tasks.schedules] == ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize("above", [True, False])
def test_the_decorator_stands_above_or_below_the_task(above: bool) -> None:
    """Both declare the same schedule, and leave the handler and the task as they are."""
    tasks: TaskRegistry[None] = TaskRegistry()
    cron = tasks.cron("30 4 * * mon-fri", tz="Europe/Berlin", payload=Report("boss"), fill=timedelta(days=1))

    async def report(payload: Report) -> None: ...

    task = cron(tasks.task("report")(report)) if above else tasks.task("report")(cron(report))
    assert task is tasks.get("report")
    assert task.handler is report
    line = '30 4 * * 1-5 report ?tz=Europe/Berlin&fill=1d {"to":"boss","pages":1}'
    assert lines(tasks) == [line]


def test_a_task_has_several_schedules() -> None:
    """Each but one has an identifier of its own."""
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.cron("@weekly", id="weekly", payload={"days": 7})
    @tasks.cron("@daily")
    @tasks.task("clean", aliases=["cleanup"])
    @tasks.cron(every=timedelta(hours=1), id="hourly", payload={"days": 0})
    @tasks.cron("@monthly", id="monthly")
    def clean(payload: dict[str, int]) -> None: ...

    assert [(schedule.identifier, schedule.task) for schedule in tasks.schedules] == [
        ("monthly", "clean"), ("hourly", "clean"), ("clean", "clean"), ("weekly", "clean"),
    ]  # fmt: skip


def test_the_decorator_has_all_settings_of_a_schedule() -> None:
    """What it is given is what a schedule of its own would have."""
    tasks: TaskRegistry[None] = TaskRegistry()
    settings: dict[str, Any] = {
        "dst": Dst.TWICE, "fill": timedelta(hours=1), "max_attempts": 3, "queue": "q", "priority": -5, "job_key": "k",
        "job_key_mode": JobKeyMode.PRESERVE_RUN_AT, "jitter": timedelta(seconds=9), "overlap": Overlap.SKIP,
        "missed": Missed.LAST, "payload": {"a": [1]},
    }  # fmt: skip

    @tasks.cron("1 2 * * *", id="i", tz="Asia/Kolkata", **settings)
    @tasks.task("x")
    def x() -> None: ...

    expected = Schedule("x", "1 2 * * *", identifier="i", timezone="Asia/Kolkata", **settings)
    assert tasks.schedules == (expected,)


def test_an_identifier_that_is_taken_is_refused_with_both() -> None:
    """The message names both, without their payloads, and nothing is added."""
    tasks: TaskRegistry[None] = TaskRegistry(crontab="0 4 * * * report {secret: 'pw'}")
    with pytest.raises(TaskDefinitionError) as caught:
        tasks.schedule("@daily other\n* * * * * sum ?id=report&every=90s")
    text = str(caught.value)
    assert text.startswith(
        "schedule 'report' is declared twice: \"0 4 * * *\" of task 'report' by crontab=, and every 0:01:30 of task "
        "'sum' by tasks.schedule."
    )
    assert "pw" not in text
    assert lines(tasks) == ['0 4 * * * report {"secret":"pw"}']

    with pytest.raises(TaskDefinitionError, match=r"by crontab=, and .* by @tasks.cron above or below report"):
        tasks.cron("@daily")(tasks.task("report")(report))
    with pytest.raises(TaskDefinitionError, match="declared twice"):
        tasks.schedule([Schedule("y", "@daily"), Schedule("y", "@hourly")])


@pytest.mark.parametrize(
    ("give", "error", "text"),
    [
        (lambda tasks: tasks.schedule("nonsense"), CrontabParseError, "line 1, column 9"),
        (lambda tasks: tasks.schedule(3), TaskDefinitionError, "got one of type int"),
        (lambda tasks: tasks.schedule(["@daily x"]), TaskDefinitionError, "got one of type list"),
        (lambda tasks: tasks.schedule(b"@daily x"), TaskDefinitionError, "got one of type bytes"),
        (lambda tasks: tasks.cron("61 * * * *"), CrontabParseError, "minute"),
        (lambda tasks: tasks.cron(), InvalidJobError, "five fields"),
        (lambda tasks: tasks.cron("@daily", tz="Mars/Base"), InvalidJobError, "timezone"),
        (lambda tasks: tasks.cron("@daily", payload=[1]), InvalidPayloadError, "payload"),
        (lambda tasks: tasks.cron(report), TaskDefinitionError, "say when"),
        (lambda tasks: tasks.cron("@daily")(5), TaskDefinitionError, "no function, and no task"),
        (lambda tasks: tasks.cron("@daily")(_other), TaskDefinitionError, "of another registry"),
    ],
)  # fmt: skip
def test_what_cannot_be_declared_is_refused(
    give: Callable[[TaskRegistry[Any]], object], error: type[Exception], text: str
) -> None:
    """Bad input is refused where it stands, before any task is known."""
    tasks: TaskRegistry[Any] = TaskRegistry()
    with pytest.raises(error, match=text):
        give(tasks)
    assert tasks.schedules == ()


def test_a_function_that_is_no_task_is_told_when_schedules_are_asked_for() -> None:
    """So that a schedule which belongs to no task is not forgotten: the worker refuses to start."""
    tasks: TaskRegistry[None] = TaskRegistry()
    tasks.task("other")(_nothing)
    tasks.cron("@daily")(report)
    with pytest.raises(TaskDefinitionError, match="cron: report is not a handler of this registry's tasks"):
        _ = tasks.schedules
    with pytest.raises(TaskDefinitionError, match="report"):
        WorkerRunner(WorkerConfig("dbname=none"), tasks)


def test_an_included_registry_brings_its_schedules() -> None:
    """A prefix stands before identifiers, and before the tasks that the registry knows."""
    inner: TaskRegistry[None] = TaskRegistry(crontab="@daily clean\n@daily foreign")
    inner.task("clean", aliases=["tidy"])(_nothing)
    inner.schedule("@hourly tidy")
    plain: TaskRegistry[None] = TaskRegistry()
    plain.include(inner)
    assert plain.schedules == inner.schedules
    outer: TaskRegistry[None] = TaskRegistry(crontab="@daily mine")
    outer.include(inner, "a.")
    outer.include(inner, "b/")
    assert [(schedule.identifier, schedule.task) for schedule in outer.schedules] == [
        ("mine", "mine"), ("a.clean", "a.clean"), ("a.foreign", "foreign"), ("a.tidy", "a.tidy"),
        ("b/clean", "b/clean"), ("b/foreign", "foreign"), ("b/tidy", "b/tidy"),
    ]  # fmt: skip


def test_an_included_registry_is_taken_whole_or_not_at_all() -> None:
    """A taken identifier keeps its tasks out too, and a taken task its schedules."""
    inner: TaskRegistry[None] = TaskRegistry(crontab="@daily clean")
    inner.task("clean")(_nothing)
    by_identifier: TaskRegistry[None] = TaskRegistry(crontab="@hourly clean")
    with pytest.raises(TaskDefinitionError, match="an included registry"):
        by_identifier.include(inner)
    assert (len(by_identifier), lines(by_identifier)) == (0, ["0 * * * * clean"])
    by_task: TaskRegistry[None] = TaskRegistry()
    by_task.task("clean")(_nothing)
    with pytest.raises(TaskDefinitionError, match="registered already"):
        by_task.include(inner)
    assert by_task.schedules == ()


def test_tasks_that_are_added_leave_their_schedules_behind() -> None:
    """`add` takes tasks only, as it leaves lifespan and plugins behind."""
    inner: TaskRegistry[None] = TaskRegistry(crontab="@daily clean")
    inner.task("clean")(_nothing)
    outer: TaskRegistry[None] = TaskRegistry()
    outer.add(inner)
    assert (len(outer), outer.schedules) == (1, ())


def test_a_copy_with_more_schedules_leaves_the_registry_as_it_is() -> None:
    """The copy has the same tasks."""
    tasks: TaskRegistry[None] = TaskRegistry(crontab="@daily a")
    tasks.task("a")(_nothing)
    more = tasks.with_schedules("@daily b", "a file")
    assert ([*more], lines(more)) == ([*tasks], ["0 0 * * * a", "0 0 * * * b"])
    assert lines(tasks) == ["0 0 * * * a"]
    with pytest.raises(TaskDefinitionError, match=r"by crontab=, and .* by a file"):
        tasks.with_schedules("@hourly a", "a file")


def test_middleware_keeps_the_schedules() -> None:
    """A worker runs a copy of a registry whose tasks have middleware; it declares the same."""
    tasks: TaskRegistry[None] = TaskRegistry(crontab="@daily a")
    tasks.task("a")(_nothing)

    @tasks.middleware
    async def around(call_next: Any, ctx: Any) -> Any: ...

    assert tasks.wrapped(lambda _: None).schedules == tasks.schedules


def test_equal_schedules_are_declared_alike() -> None:
    """However they were written and in whatever order: one digest. Another set has another one, and none has none."""
    first = crontab_of(parse_crontab("0  4 * * SUN report ?fill=24h {a: 1}\n@daily x"))
    again = crontab_of(
        [Schedule("x", "0 0 * * *"), Schedule("report", "0 4 * * 7", fill=timedelta(days=1), payload={"a": 1})]
    )
    other = crontab_of(parse_crontab("0 4 * * SUN report ?fill=24h {a: 2}\n@daily x"))
    assert first is not None
    assert again is not None
    assert other is not None
    assert first.items == again.items == {"report": '0 4 * * 0 report ?fill=1d {"a":1}', "x": "0 0 * * * x"}
    assert first.digest == again.digest != other.digest
    assert crontab_of([]) is None


def test_a_worker_needs_a_task_beside_schedules() -> None:
    """A registry that only schedules cannot be worked: other workers would have to run its jobs."""
    with pytest.raises(ConfigurationError, match="it has no task"):
        WorkerRunner(WorkerConfig("dbname=none"), TaskRegistry(crontab="@daily x"))


async def report() -> None:
    """A function that is no task."""


def _nothing() -> None: ...


_other = TaskRegistry().task("other")(lambda: None)


def test_a_program_without_recurring_jobs_does_not_load_what_reads_them() -> None:
    """It would pay for it at each start; a registry loads it with its first schedule."""
    program = """
import sys
from backfill import TaskRegistry

tasks = TaskRegistry()
tasks.include(TaskRegistry())
assert tasks.schedules == ()
assert not [name for name in sys.modules if name.startswith(("backfill.cron", "backfill.worker.scheduling.scheduler"))]
tasks.schedule("@daily report")
assert len(tasks.schedules) == 1
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
