"""What programs that come from the Rust crate call: the types of the answers, and calls that type checkers refuse."""

from __future__ import annotations

from datetime import timedelta
from typing import assert_type

from backfill import (
    BackfillClient,
    DlqProcessor,
    ReleasedLocks,
    WorkerError,
    WorkerRunner,
    classify_error_for_metrics,
    classify_from_message,
)


async def manage(client: BackfillClient, runner: WorkerRunner) -> None:
    """Each gives exactly its own type."""
    async with client.pool.connection() as connection:
        await client.enqueue("t", {}, connection=connection)
    assert_type(await client.force_unlock_workers(["worker-1"]), ReleasedLocks)
    assert_type(await client.force_unlock_workers({"worker-1"}, force=True), ReleasedLocks)
    async with client.start_dlq_processor(timedelta(minutes=5)) as processor:
        assert_type(processor, DlqProcessor)
        assert_type(processor.moved, int)
    assert_type(runner.dlq_processor_enabled, bool)


def classify(error: Exception) -> None:
    """An error gives a word or another error, and a text an error."""
    assert_type(classify_error_for_metrics(error), str)
    assert_type(classify_from_message("timed out"), WorkerError)
    assert_type(WorkerError.from_any_error(error), WorkerError)


async def refused(client: BackfillClient, error: Exception) -> None:
    """An exception is no text, and an id of a worker no number."""
    classify_from_message(error)  # error: str
    await client.force_unlock_workers([7])  # error: str
    client.start_dlq_processor(60)  # error: timedelta
    classify_error_for_metrics("timed out")  # error: BaseException
    WorkerError.from_any_error("timed out")  # error: BaseException
