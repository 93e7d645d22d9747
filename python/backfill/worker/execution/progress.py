"""The book of progress: what the handlers of a worker have said about their progress and is not written yet.

A handler says how far it has come as often as it likes, from any thread. Only the latest of it is kept, in memory, and
nothing waits for the database. A service of the worker writes what has changed, once a second at most, and what an
attempt said last is written with the attempt's end.
"""

from __future__ import annotations

from typing import Any

from backfill.worker.execution.held_job import HeldJob


class ProgressBook:
    """Holds the latest progress and checkpoint of each attempt of one worker. All methods are safe from any thread."""

    def progress(self, running: HeldJob, done: float, total: float | None = None, note: str | None = None) -> None:
        """Note how far an attempt has come. What it said before is replaced, the total and the note too.

        A call for an attempt that has ended is ignored.

        Raises:
            InvalidJobError: one of the values cannot be used; the message names it.
        """
        raise NotImplementedError

    def checkpoint(self, running: HeldJob, value: Any) -> None:
        """Note a checkpoint of an attempt. A call for an attempt that has ended is ignored.

        Raises:
            InvalidPayloadError: the value has no form in JSON, or is too large.
        """
        raise NotImplementedError

    def checkpoint_encoded(self, running: HeldJob, encoded: bytes) -> None:
        """Note a checkpoint that `backfill.progress.encode_checkpoint` has checked and encoded elsewhere."""
        raise NotImplementedError

    def checkpointed(self, running: HeldJob) -> Any:
        """The value of the job's last checkpoint, of this attempt or of an earlier one; None if there is none."""
        raise NotImplementedError

    def checkpointed_encoded(self, running: HeldJob) -> bytes | None:
        """The same as JSON text, which another process can decode; None if there is none."""
        raise NotImplementedError
