"""A batch handler that tests run in a child process, which imports this module."""

from __future__ import annotations

from datetime import timedelta

from backfill import BatchFailed, InvalidInput, RetryPolicy, TaskRegistry

LATER = RetryPolicy(9, timedelta(hours=1), timedelta(hours=1), 1.0, 0.0)
tasks: TaskRegistry[None] = TaskRegistry()


class TryAgainError(Exception):
    """An error of the program that cannot be pickled: it has two arguments and keeps one text."""

    def __init__(self, item: str, place: int) -> None:
        super().__init__(f"{item} at {place}")


class FatalError(InvalidInput):
    """One after which no other attempt follows."""

    def __init__(self, item: str, place: int) -> None:
        super().__init__(f"{item} at {place}")


@tasks.task("batch_in_process", batch=True, run_in="process", retry=LATER)
def batch_in_process(items: list[str]) -> None:
    """Fail all items but the good ones; one that is fatal has no other attempt follow."""
    failed = [place for place, item in enumerate(items) if item != "good"]
    if failed:
        kind = FatalError if "fatal" in items else TryAgainError
        raise BatchFailed(failed, kind(items[failed[-1]], failed[-1]))
