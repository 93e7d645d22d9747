"""The statements by which one worker of the fleet sees for the metrics what waits, and what holds it up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from backfill.client.verbs.asked import Verb
from backfill.storage.results import first, rows

if TYPE_CHECKING:
    from backfill.storage.results import Result

LOOKED_AT: Final = 10_000
"""How many jobs of each priority are looked at most; ten times as many dead letters."""


class Depth(NamedTuple):
    """The jobs of a task in one state.

    Attributes:
        state: due, scheduled or running.
        task: the task's name.
        jobs: how many there are.
    """

    state: str
    task: str
    jobs: int


class QueueFound(NamedTuple):
    """What is in the queue.

    Attributes:
        depth: the jobs by state and task.
        oldest_seconds: for how many seconds the oldest due job has been due; 0 where none is due.
        dead_letters: the dead letters of the ten tasks that have most, and all of them under the empty name.
    """

    depth: list[Depth]
    oldest_seconds: float
    dead_letters: dict[str, int]


def look_at_queue(worker: str) -> Verb[QueueFound | None]:
    """Count what is in the queue; the answer is None if the worker is not the live one with the smallest id."""
    return Verb("look_at_queue", (worker, str(LOOKED_AT)), _found)


def oldest_snapshot() -> Verb[float]:
    """Tell for how many seconds the transaction has been open that keeps dead rows longest; 0 where there is none."""
    return Verb("find_oldest_snapshot", (), lambda found: first(found).fraction("seconds"))


def _found(found: Result) -> QueueFound | None:
    depth, dead, oldest = list[Depth](), dict[str, int](), 0.0
    for row in rows(found):
        if not row.flag("answered"):
            return None
        state, task, number = row.word("state"), row.word("task"), row.whole("number")
        if state == "dead":
            dead[task] = number
            continue
        depth.append(Depth(state, task, number))
        if row.text("oldest") is not None:
            oldest = max(oldest, row.fraction("oldest"))
    return QueueFound(depth, oldest, dead)
