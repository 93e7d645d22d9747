"""Commits whose answers were lost: whether the transaction took effect.

Used where a handler's own transaction completes its job. A transaction is known by its id and by the history of the
database in which that id was given, since a server that was a standby may give it to another transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from backfill.storage.results import binary_rows
from backfill.storage.wire import Command

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

    from backfill.storage.results import Result


@dataclass(frozen=True, slots=True)
class TransactionId:
    """By what a transaction is known.

    Attributes:
        number: its id.
        timeline: the history of the database in which the id stands for it; None where the server did not say.
        is_blocks_own: whether it is the one that was begun for the block. A handler can end that by `commit` as SQL
            text, and begin another one.
        is_read_committed: whether each of its statements sees what others have committed meanwhile.
    """

    number: str
    timeline: str | None
    is_blocks_own: bool = True
    is_read_committed: bool = True


class Fate(StrEnum):
    """What became of a transaction."""

    IN_PROGRESS = "in progress"
    COMMITTED = "committed"
    ABORTED = "aborted"
    UNKNOWN = "unknown"


def ask_id(schema: str) -> Command:
    """The command that reads the id of the transaction in which it runs."""
    return Command.of("read_transaction", schema)


def read_id(result: Result) -> TransactionId:
    """The id that the command gave."""
    [row] = binary_rows(result)
    timeline = row.raw("timeline")
    return TransactionId(
        row.text("transaction"),
        None if timeline is None else timeline.decode(),
        row.text("deferrable") == "on",
        row.text("isolation") in ("read committed", "read uncommitted"),
    )


def ask_fate(transaction: TransactionId, schema: str) -> Command:
    """The command that reads what became of a transaction."""
    return Command.of("read_commit", schema, transaction.number, transaction.timeline)


def read_fate(transaction: TransactionId, result: PGresult) -> Fate:
    """What the command gave.

    Where the history of the database is not known, nothing but that it is in progress can be believed.
    """
    [row] = binary_rows(result)
    raw = row.raw("fate")
    fate = Fate.UNKNOWN if raw is None else Fate(raw.decode())
    return fate if transaction.timeline is not None or fate is Fate.IN_PROGRESS else Fate.UNKNOWN
