"""Breakers as types, and which attempts a worker's breakers take note of."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backfill import (
    Breaker,
    ConfigurationError,
    Control,
    ControlKind,
    Job,
    QueueConfig,
    TaskDefinitionError,
    TaskRegistry,
)
from backfill.worker.control.breakers import Breakers
from backfill.worker.execution.endings import (
    CANCELLED,
    COMPLETED,
    GIVEN_BACK,
    CompletedWithResult,
    Discarded,
    Ending,
    Failed,
    Snoozed,
)
from backfill.worker.execution.held_job import HeldJob
from backfill.worker.lanes.making import make_lanes

EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
OPENED = datetime(2026, 1, 1, tzinfo=UTC)
PAUSE = timedelta(seconds=30)
FINAL = Failed("no", final=True)


class Bench:
    """The breakers of a worker without a database, and what they were asked for."""

    def __init__(self) -> None:
        tasks: TaskRegistry[None] = TaskRegistry()

        @tasks.task("frail", aliases=["old"], breaker=Breaker(2))
        async def frail(_: int) -> None: ...

        @tasks.task("other")
        async def other(_: int) -> None: ...

        self.asked = list[tuple[Any, ...]]()
        self.broken = frozenset[str]()
        self.breakers = Breakers(self, tasks, broken=self._break)  # type: ignore[arg-type] # what it asks a client for
        [self.lane] = make_lanes(
            (QueueConfig.default_queue(1),),
            schema="graphile_worker",
            tasks=("frail", "old", "other"),
            forbidden_flags=(),
        )
        self.stand: list[Control] = []

    def _break(self, names: frozenset[str]) -> None:
        self.broken = names

    async def trip_breaker(self, task: str, names: tuple[str, ...], breaker: Breaker) -> None:
        """Note the question; nothing opens."""
        self.asked.append(("trip", task, names, breaker.dead_letters))

    async def end_trial(self, task: str, control: int, *, failed: bool) -> None:
        """Note the answer; nothing changes."""
        self.asked.append(("trial", task, control, failed))

    async def open(self, task: str = "frail") -> None:
        """Let a breaker stand."""
        control = Control(
            id=7, kind=ControlKind.BREAKER, subject=f"task:{task}", task=task, trips=1, until=OPENED + PAUSE,
            by="breaker", said_at=OPENED,
        )  # fmt: skip
        self.stand = [control]
        await self.breakers.follow(self.stand)

    async def settle(
        self, ending: Ending, *, task: str = "frail", at: timedelta = PAUSE, began: bool = True, lost: bool = False
    ) -> list[tuple[Any, ...]]:
        """Settle one attempt that was claimed so long after the opening; gives what the database is asked then."""
        micros = (OPENED + at - EPOCH) // timedelta(microseconds=1)
        running = HeldJob(
            Job(id=1, task_identifier=task, attempts=1, max_attempts=9, locked_at_micros=micros), self.lane
        )
        running.ending, running.handler_started = ending, began
        self.breakers.settled([running], {running} if lost else ())
        self.asked.clear()
        assert await self.breakers._report() == []
        return self.asked


@pytest.mark.parametrize("task", ["frail", "old"])
async def test_a_dead_letter_is_counted(task: str) -> None:
    """Of a task with a breaker, also under its alias; not a failure that is retried, and not one that was lost."""
    bench = Bench()
    assert await bench.settle(FINAL, task=task) == [("trip", "frail", ("frail", "old"), 2)]
    assert await bench.settle(FINAL, task=task, lost=True) == []
    assert await bench.settle(Failed("no"), task=task) == []
    assert await bench.settle(COMPLETED, task=task) == []
    assert await bench.settle(FINAL, task="other") == []


@pytest.mark.parametrize(
    ("ending", "began", "failed"),
    [
        (COMPLETED, True, False),
        (CompletedWithResult(b"1"), True, False),
        (Discarded("no need"), True, False),
        (Snoozed(1.0), True, False),
        (Failed("no"), True, True),
        (FINAL, True, True),
        (FINAL, False, True),
        (GIVEN_BACK, True, None),
        (CANCELLED, True, None),
        (Discarded("too late"), False, None),
    ],
)
async def test_the_end_of_a_trial_is_told(ending: Ending, began: bool, failed: bool | None) -> None:
    """A failure opens the breaker again; what says nothing about the other side is not told."""
    bench = Bench()
    await bench.open()
    assert bench.broken == {"frail", "old"}
    told = [] if failed is None else [("trial", "frail", 7, failed)]
    assert await bench.settle(ending, began=began) == told
    assert await bench.settle(ending, began=began, task="old") == told


async def test_an_attempt_from_before_is_no_trial() -> None:
    """One that was claimed before the breaker opened, or by a worker that had not heard of it yet."""
    bench = Bench()
    await bench.open()
    assert await bench.settle(COMPLETED, at=timedelta(seconds=-1)) == []
    assert await bench.settle(FINAL, at=timedelta(seconds=2)) == []
    assert await bench.settle(COMPLETED, at=PAUSE - timedelta(milliseconds=1)) == [("trial", "frail", 7, False)]


async def test_workers_that_declare_no_breaker_tell_of_trials_too() -> None:
    """As long as one stands; and nobody looks at a control that this version cannot read, or of an unknown task."""
    bench = Bench()
    await bench.open("other")
    assert bench.broken == {"other"}
    assert await bench.settle(COMPLETED, task="other") == [("trial", "other", 7, False)]
    await bench.open("unknown")
    assert bench.broken == set()
    assert await bench.settle(COMPLETED, task="other") == []


async def test_recovered_dead_letters_are_counted() -> None:
    """Of all tasks with breakers, since nobody says whose they are."""
    bench = Bench()
    bench.breakers.suspect()
    assert await bench.breakers._report() == []
    assert bench.asked == [("trip", "frail", ("frail", "old"), 2)]


@pytest.mark.parametrize(
    "wrong",
    [
        {"dead_letters": 0},
        {"dead_letters": 10_001},
        {"dead_letters": True},
        {"dead_letters": 1.5},
        {"within": timedelta(0)},
        {"within": timedelta(days=2)},
        {"within": 60},
        {"pause": timedelta(0)},
        {"pause": timedelta(hours=2)},
        {"longest": timedelta(days=367)},
        {"longest": timedelta(seconds=-1)},
    ],
)
def test_what_no_breaker_can_have_is_refused(wrong: dict[str, Any]) -> None:
    """The message names the field and its range."""
    [field] = wrong
    with pytest.raises(ConfigurationError, match=rf"^Breaker\.{field} = .*: expected "):
        Breaker(**wrong)


@given(
    dead_letters=st.integers(1, 10_000),
    within=st.timedeltas(timedelta(microseconds=1), timedelta(days=1)),
    spans=st.tuples(*[st.timedeltas(timedelta(microseconds=1), timedelta(days=366))] * 2),
)
def test_every_breaker_in_range_can_be_made(dead_letters: int, within: timedelta, spans: tuple[timedelta, ...]) -> None:
    """And it is a value: equal to another one like it, and fixed."""
    made = [Breaker(dead_letters, within, *sorted(spans)) for _ in range(2)]
    assert made[0] == made[1]
    with pytest.raises(AttributeError):
        made[0].dead_letters = 3  # type: ignore[misc]


def test_a_task_takes_a_breaker_and_nothing_else() -> None:
    """A number is refused, with a word on what to give."""
    tasks: TaskRegistry[None] = TaskRegistry()
    with pytest.raises(TaskDefinitionError, match=r"task 't': breaker = 5: expected a Breaker"):
        tasks.task("t", breaker=5)  # type: ignore[arg-type]

    @tasks.task("t", breaker=Breaker(3))
    async def handler(_: int) -> None: ...

    assert handler.breaker == Breaker(3)
    outer: TaskRegistry[None] = TaskRegistry()
    outer.include(tasks, prefix="a.")
    assert [task.breaker for task in outer] == [Breaker(3)]
