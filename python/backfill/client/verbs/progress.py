"""Statements that write and read the progress of jobs, and that delete that of jobs that are gone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from backfill.client.verbs.asked import Steps, Verb
from backfill.client.verbs.attempts import AttemptedJob, job_number
from backfill.errors import InvalidJobError
from backfill.payloads import decode_plain
from backfill.progress import Progress
from backfill.storage.arrays import number_array
from backfill.storage.progress import Entry, progress_parameters
from backfill.storage.results import Row, first, integers, nothing, rows

if TYPE_CHECKING:
    from backfill.storage.results import Result

PAGE: Final = 1_000
"""How many jobs a statement reads or looks at."""
FRONT: Final = -(2**63)
"""The place before all jobs."""
_NO_TIME: Final = datetime(1, 1, 1, tzinfo=UTC)


class SweptProgress(NamedTuple):
    """What one page of a sweep did.

    Attributes:
        seen: how many rows were looked at.
        deleted: how many of them were deleted.
        place: the id of the job after which the next page begins.
    """

    seen: int
    deleted: int
    place: int


def progress(jobs: Iterable[AttemptedJob]) -> Steps[dict[int, Progress]]:
    """Read how far jobs have come, by their ids; those of which nothing is known are left out."""
    ids = [number for index, job in enumerate(jobs) if (number := job_number(f"jobs[{index}]", job)) is not None]
    return _pages(ids)


def progress_of(job: AttemptedJob) -> Steps[Progress | None]:
    """Read how far one job has come; the answer is None if nothing is known of it."""
    return _one(job_number("job", job))


def listed(jobs: object) -> Iterable[AttemptedJob] | None:
    """The jobs, if they are several in a list or the like; None if it is one job."""
    if isinstance(jobs, (str, bytes)):
        raise InvalidJobError("job", jobs, "a job's id, a Job or the like, or a list of these")
    return jobs if isinstance(jobs, Iterable) else None


def write_progress(worker: str, entries: Sequence[Entry]) -> Verb[set[int]]:
    """Write the progress of running attempts; the answer is the ids of the jobs for which it was written."""
    parameters = progress_parameters(entries, worker=worker)
    return Verb("write_progress", parameters, lambda found: set(integers(found, "id")))


def read_checkpoint(job: int) -> Verb[bytes | None]:
    """Read the checkpoint of a job as JSON text; the answer is None if there is none."""
    return Verb("read_checkpoint", (str(job),), _checkpoint)


def forget_progress(jobs: Iterable[int]) -> Verb[None]:
    """Delete the progress of jobs, of those that are gone."""
    return Verb("forget_progress", (number_array(jobs),), nothing)


def sweep_progress(place: int) -> Verb[SweptProgress]:
    """Delete the progress of jobs that are gone among a page of rows, from a place on."""
    return Verb("sweep_progress", (str(place), str(PAGE)), _swept)


def _pages(ids: Sequence[int]) -> Steps[dict[int, Progress]]:
    found: dict[int, Progress] = {}
    for start in range(0, len(ids), PAGE):
        some = yield from Verb("list_progress", (number_array(ids[start : start + PAGE]),), _read)
        found.update({one.job_id: one for one in some})
    return found


def _one(number: int | None) -> Steps[Progress | None]:
    return None if number is None else (yield from _pages([number])).get(number)


def _read(found: Result) -> list[Progress]:
    return [_progress(row) for row in rows(found)]


def _progress(row: Row) -> Progress:
    checkpoint = row.raw("checkpoint")
    return Progress(
        job_id=row.whole("job_id"),
        attempt=row.whole("attempt"),
        done=_steps(row, "done"),
        total=_steps(row, "total"),
        note=row.text("note"),
        at=row.time("progress_at") or _NO_TIME,
        checkpoint=None if checkpoint is None else decode_plain(checkpoint),
    )


def _steps(row: Row, name: str) -> float | None:
    """A number of steps, as an integer where it is whole."""
    raw = row.raw(name)
    if raw is None:
        return None
    value = float(raw)
    return int(value) if value.is_integer() else value


def _checkpoint(found: Result) -> bytes | None:
    return found.get_value(0, 0) if found.ntuples else None


def _swept(found: Result) -> SweptProgress:
    row = first(found)
    last = row.number("job_id")
    return SweptProgress(row.whole("seen"), row.whole("deleted"), FRONT if last is None else last)
