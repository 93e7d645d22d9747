"""The steps that take all locks from workers which an operator names, as the contract's force_unlock_workers does."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from backfill.checks import KEY_LIMIT, check_text
from backfill.client.verbs.asked import Steps, Verb
from backfill.client.verbs.cleanup import ReleasedLocks
from backfill.errors import CleanupRefusedError, InvalidJobError
from backfill.storage.arrays import text_array
from backfill.storage.results import first, nothing, rows


def checked_ids(worker_ids: Iterable[str]) -> list[str]:
    """The ids of workers that a caller gave, each once.

    Raises:
        InvalidJobError: it is no list of ids of workers.
    """
    if isinstance(worker_ids, (str, bytes)) or not isinstance(worker_ids, Iterable):
        raise InvalidJobError("worker_ids", worker_ids, "a list of ids of workers")
    ids = list(worker_ids)
    for worker in ids:
        check_text("worker_ids", worker, KEY_LIMIT)
        if worker == "backfill:pause" or worker.startswith(("backfill:retry:", "backfill:pause:")):
            raise InvalidJobError(
                "worker_ids",
                worker,
                "the id of a worker; this is the mark of a queue that is paused, until resume() is called, or held for "
                "the retry of a job, until that job has ended",
            )
    return list(dict.fromkeys(ids))


def force_unlock_workers(ids: Sequence[str], *, force: bool) -> Steps[ReleasedLocks]:
    """Unlock what workers hold; with `force`, also what live ones hold."""
    if not ids:
        return ReleasedLocks(0, 0)
    parameters = (text_array(ids),)
    if not force:
        live = yield from Verb(
            "find_live_workers", parameters, lambda found: tuple(row.word("id") for row in rows(found))
        )
        if live:
            raise CleanupRefusedError(
                f"worker_ids: these workers are alive and may be running their jobs, which would run a second time: "
                f"{', '.join(live)}. Stop them, which gives their jobs back; or leave them out; or say force=True",
                live,
            )
    done = yield from Verb(
        "force_unlock_workers",
        parameters,
        lambda found: ReleasedLocks(first(found).whole("queues"), first(found).whole("jobs")),
    )
    if done.job_locks or done.queue_locks:
        yield from Verb("notify_jobs", (str(max(done.job_locks, 1)),), nothing)
    return done
