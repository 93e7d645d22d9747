"""Statements by which workers open and close the circuit breakers of tasks."""

from __future__ import annotations

from collections.abc import Iterable

from backfill.breakers import Breaker
from backfill.client.verbs.asked import Verb
from backfill.client.verbs.control import read_standing
from backfill.controls import Control
from backfill.storage.arrays import text_array


def trip_breaker(task: str, names: Iterable[str], breaker: Breaker) -> Verb[Control | None]:
    """Open the breaker of a task if it has dead letters enough; the answer is the control that says so."""
    spans = (breaker.within, breaker.pause, breaker.longest)
    parameters = (
        task,
        text_array(tuple(names)),
        str(breaker.dead_letters),
        *(str(span.total_seconds()) for span in spans),
    )
    return Verb("trip_breaker", parameters, read_standing)


def end_trial(task: str, control: int, *, failed: bool) -> Verb[Control | None]:
    """Say how a trial ended; the answer is the control that stands now, or the one that is gone if it did not fail."""
    return Verb("end_trial", (task, str(control), "true" if failed else "false"), read_standing)
