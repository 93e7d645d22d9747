"""The statement that writes several jobs together, and the rows that it gives back.

Used by `senders` for the calls that wait, and by `enqueue` for a single job of which workers are not told.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from backfill.client.prepare import JobShape, Parameters, flags_json, interval
from backfill.errors import CommitUnknownError
from backfill.jobs import JobKeyMode
from backfill.storage.arrays import encoded_array, number_array, text_array

if TYPE_CHECKING:
    from backfill.records import Job

PATIENCE: Final = "200ms"
"""For how long several jobs wait together for a key that another transaction holds; after that, each waits alone."""
Row = tuple[JobShape, bytes]


def may_gather(shape: JobShape) -> bool:
    """Tell whether a job may be written together with others.

    A call whose job may not be added, because its key is taken or reserved, asks further questions, so it is sent
    alone.
    """
    return shape.key is None or (shape.mode is not JobKeyMode.UNSAFE_DEDUPE and shape.unique_for is None)


def gathered(rows: Sequence[Row], *, tell: bool, by_functions: bool, patience: str | None) -> tuple[str, Parameters]:
    """Return the name and the parameters of the statement that adds jobs together.

    Args:
        rows: the jobs: each has its shape and its payload's JSON; no key may come twice, and those with keys have one
            mode.
        tell: whether the workers are notified, once.
        by_functions: whether the connection's role is a producer's.
        patience: for how long the statement waits for rows that others hold; None for as long as the session says.
    """
    shapes = [shape for shape, _ in rows]
    keyed = [shape for shape in shapes if shape.key is not None]
    parameters = (
        text_array([shape.task for shape in shapes]),
        text_array([shape.queue for shape in shapes]),
        encoded_array([payload for _, payload in rows]),
        number_array([shape.priority for shape in shapes]),
        text_array([None if shape.run_at is None else shape.run_at.isoformat() for shape in shapes]),
        text_array([None if shape.delay is None else interval(shape.delay) for shape in shapes]),
        number_array([shape.max_attempts for shape in shapes]),
        text_array([flags_json(shape.flags) for shape in shapes]),
        text_array([shape.key for shape in shapes]) if keyed else None,
        keyed[0].mode.value if keyed else "replace",
        "true" if tell else "false",
        patience,
    )
    return ("producer_gather_jobs" if by_functions else "gather_jobs"), parameters


def in_order(rows: Sequence[Row], written: Sequence[Job]) -> list[Job]:
    """Return the written jobs in the order of the rows that they were made of.

    Jobs without keys got their ids in the order of their rows.

    Raises:
        CommitUnknownError: not all rows, or others, were written; it is not known which.
    """
    if len(written) != len(rows) or {shape.key for shape, _ in rows} != {job.key for job in written}:
        raise CommitUnknownError(
            f"{len(written)} of {len(rows)} jobs that went together were written as they are, so this one may or may "
            "not be there: a trigger on the table leaves some out or changes them. BackfillClient(gather=False) sends "
            "each job by itself"
        )
    keyless = iter(sorted([job for job in written if job.key is None], key=lambda job: job.id))
    by_key = {job.key: job for job in written}
    return [next(keyless) if shape.key is None else by_key[shape.key] for shape, _ in rows]
