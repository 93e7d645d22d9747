"""What a real worker's handlers have done, done to the model: each run begins, adds, removes and ends in its turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from life.deeds import Run, Step
from life.machine import expected
from life.model import Model
from life.things import KEPT_TASK, Held


def replay(model: Model, steps: Sequence[tuple[Step, Run]], *, may_break: bool = False) -> list[Run]:
    """Do to the model what handlers have done; assert that each run was one that the model would have had.

    Args:
        model: the queue as it was before.
        steps: what the runs did, in order.
        may_break: whether windows were lost meanwhile. A run in one may count for nothing; then its job runs again as
            if that had not been.

    Returns:
        The runs that count for nothing.
    """
    runs = [run for step, run in steps if step == "begins"]
    again = [run for place, run in enumerate(runs) if any(_is_same_attempt(run, other) for other in runs[place + 1 :])]
    assert may_break or not again
    for run in again:
        assert is_for_windows(run.told)
    assert [run for run in runs if run.ending is None and run not in again] == [], "nothing else cancels a handler"
    holds = dict[Run, Held]()
    adding = {run.added: run for step, run in steps if step == "adds"}
    for step, run in steps:
        match step:
            case "begins" if run not in again:
                if (adder := adding.pop(run.job, None)) is not None:
                    _add(model, adder)  # it has begun before whoever enqueued it had its answer
                holds[run] = _begin(model, run)
            case "adds" if adding.pop(run.added, None) is not None:
                _add(model, run)
            case "removes" if (key := holds[run].claimed.key) is not None:
                model.remove(key)
            case "ends" if run not in again:
                assert run.ending is not None
                assert model.settle(holds[run], run.ending, run.error, run.result)
    return again


def is_for_windows(told: tuple[Any, ...]) -> bool:
    """Whether a job as its claimed row has it runs in a window, where there are any."""
    task, _, key, queue, _, attempts, *_ = told
    return task != KEPT_TASK and key is None and queue is None and attempts == 1


def _begin(model: Model, run: Run) -> Held:
    job = model.jobs[run.job]
    assert job in model.due()
    assert job.queue not in model.locks
    held = model.claim(run.worker, run.job)
    assert run.told == expected(held.claimed)
    assert not run.in_window or is_for_windows(run.told)
    return held


def _add(model: Model, run: Run) -> None:
    assert run.spec is not None
    model.add(run.spec, run.added)


def _is_same_attempt(run: Run, other: Run) -> bool:
    """Whether two runs were of the same attempt of a job, as their claims had it."""
    return other.job == run.job and other.told == run.told
