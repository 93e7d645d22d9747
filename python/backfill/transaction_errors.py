"""The errors of a handler's own transaction, in which its job is completed (`ctx.transaction()`)."""

from __future__ import annotations

from backfill.errors import BackfillError


class LeaseLostError(BackfillError):
    """The job is not this worker's any more, so what its handler wrote in `ctx.transaction()` was not committed.

    It is also raised where the answer to the commit was lost, and nobody can tell whether the job was completed by this
    attempt or by another one. The attempt ends with it, whatever the handler returns or raises after that.
    """


class TransactionUseError(BackfillError):
    """`ctx.transaction()` was used in a way in which it cannot complete the job; the message says the way out."""
