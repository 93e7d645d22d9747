"""Windows: open transactions that hold short jobs by the locks of their rows alone, and delete those that complete.

Used by the worker's express lines, and by the recovery, which ends the windows of a worker that was given up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from backfill._native import pack_array
from backfill.storage.arrays import text_array
from backfill.storage.values import integer
from backfill.storage.wire import Command, Wire

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

    from backfill.records import Job

WINDOW_LINES: Final = 2
"""How many windows a worker has open at once at most, each on a connection of its own."""
LARGEST_STEP: Final = 500
"""Of how many jobs at most `complete_lost` should be asked at once."""
_STATEMENT_TIMEOUT: Final = "30s"


@dataclass(frozen=True, slots=True)
class RowVersion:
    """A version of a job's row, as a window held it.

    Attributes:
        id: the job's id.
        place: where the version is in the table.
        writer: the transaction that wrote it.
    """

    id: int
    place: str
    writer: str


def session_name(worker: str, line: int) -> str:
    """The name of the session of one of a worker's windows.

    It is another one than that of the worker's hot lines, so that nothing that looks for those ends a window.
    """
    return f"backfill express {worker} {line}"


def begin_commands(schema: str, *, idle_seconds: float, first: Sequence[Command] = ()) -> list[Command]:
    """The statements that begin a window.

    Args:
        schema: the queue's schema.
        idle_seconds: after how many seconds without a statement the server ends the session.
        first: statements that make the settings which a session cannot be trusted to keep.
    """
    idle = f"{max(int(idle_seconds * 1000), 1)}ms"
    return [
        Command.of("begin_window", schema),
        Command.of("bound_window", schema, idle, _STATEMENT_TIMEOUT),
        *first,
        Command.of("lock_window", schema),
    ]


def end_commands(schema: str, worker: str, *, completed: Sequence[int], claimed: Sequence[Job]) -> list[Command]:
    """The statements that end a window.

    Args:
        schema: the queue's schema.
        worker: the worker's id.
        completed: the ids of the jobs that have completed.
        claimed: the jobs that go on after the window.
    """
    commands = []
    if completed:
        commands.append(Command.of("complete_window", schema, pack_array(completed, "int8")))
    if claimed:
        ids = pack_array([job.id for job in claimed], "int8")
        times = pack_array([job.locked_at_micros for job in claimed], "timestamptz")
        commands.append(Command.of("claim_window", schema, worker, ids, times))
    return [*commands, Command.of("end_window", schema)]


def drop_command(schema: str) -> Command:
    """The statement that gives a window up."""
    return Command.of("drop_window", schema)


def changed(result: PGresult) -> int:
    """How many rows a statement has changed."""
    return result.command_tuples or 0


def unwritten(result: PGresult, claimed: Sequence[int]) -> set[int]:
    """The ids of the jobs whose claims the end of a window was to write and has not written.

    Args:
        result: what `claim_window` gave.
        claimed: the ids of the jobs that it was to claim.
    """
    if changed(result) == len(claimed):
        return set()
    return set(claimed).difference(integer(result, row) for row in range(result.ntuples))


def versions(results: Sequence[PGresult]) -> dict[int, RowVersion]:
    """The versions of the rows that looks gave, by the jobs' ids."""
    found = {}
    for result in results:
        columns = {result.fname(column): column for column in range(result.nfields)}
        for row in range(result.ntuples):
            number = integer(result, row, columns[b"id"])
            place, writer = result.get_value(row, columns[b"ctid"]), result.get_value(row, columns[b"xmin"])
            assert place is not None  # noqa: S101 - a system column is never null
            assert writer is not None  # noqa: S101 - see above
            page, item = int.from_bytes(place[:4]), int.from_bytes(place[4:])
            found[number] = RowVersion(number, f"({page},{item})", str(int.from_bytes(writer)))
    return found


async def complete_lost(
    wire: Wire, rows: Sequence[RowVersion], *, schema: str, timeout: float
) -> tuple[set[int], set[int]]:
    """Delete jobs that completed within a window that was lost, each only while its row is still the same.

    Returns:
        The ids of those that it deleted, and of those that were gone before. The others run again.
    """
    deleted, gone = set[int](), set[int]()
    ids = pack_array([row.id for row in rows], "int8")
    places, writers = text_array([row.place for row in rows]), text_array([row.writer for row in rows])
    [result] = await wire.send([Command.of("complete_lost", schema, ids, places, writers)], timeout=timeout)
    for row in range(result.ntuples):
        (deleted if integer(result, row, 1) else gone).add(integer(result, row))
    return deleted, gone
