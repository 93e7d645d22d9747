"""Settlements: the ends of some attempts, written at once by one statement for each kind of end.

Used by the worker's settler. The kinds of ends are defined by the endings (`worker/execution/endings.py`). This module
knows how an end of any kind is written, and what its statement answers. A settlement may be repeated: where an attempt
was settled already, or its job was given to another worker since, the statement matches nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from backfill._native import pack_array
from backfill.flags import dead_letter_of
from backfill.storage.arrays import number_array, text_array
from backfill.storage.attempts import Attempt
from backfill.storage.claim_kinds import ClaimKind
from backfill.storage.progress import Entry, end_command, forget_command
from backfill.storage.results import binary_rows
from backfill.storage.shares import pass_command, read_passed
from backfill.storage.values import integer
from backfill.storage.wire import Command, Parameter, Wire

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

NOBODY: Final[frozenset[int]] = frozenset()
Column = Callable[[Sequence[Any]], Parameter]
"""Packs a parameter's values, one for each attempt of a statement and in the attempts' order."""
NUMBERS: Final[Column] = number_array
TEXTS: Final[Column] = text_array
BOOLEANS: Final[Column] = lambda values: pack_array(values, "bool")  # noqa: E731 - one of a list of such
TIMES: Final[Column] = lambda values: pack_array(values, "timestamptz")  # noqa: E731 - one of a list of such


@dataclass(frozen=True, slots=True)
class Settling:
    """A statement that writes the ends of attempts of one kind.

    Its result has a row for each attempt that it found: the job's id, the time of its lock and, where it `tells_last`,
    whether the attempt was the last.

    Attributes:
        statement: the statement's name.
        columns: how its parameters beside those that identify the attempts are packed, in order.
        compares: whether it compares the job's row with the row as it was claimed, so that a replaced job is noticed.
        ends_job: whether the job is over with this end, so that the dead letters that it left behind are deleted.
        tells_last: whether its result says of each attempt if it was the job's last.
        asks_batches: whether its last parameter says which of the jobs are batches.
    """

    statement: str
    columns: tuple[Column, ...] = ()
    compares: bool = False
    ends_job: bool = False
    tells_last: bool = False
    asks_batches: bool = False


End = tuple[Settling, Attempt, tuple[Any, ...]]
"""The end of an attempt: the statement that writes it, the attempt, and the values for the statement's columns."""
_Way = tuple[Settling, ClaimKind]
"""Ends of one kind, of attempts whose claims are of one kind: these are written by one statement."""


class Settlement:
    """The ends of some attempts, to be written at once.

    Args:
        ends: the ends, in any order.
        forgets: whether the dead letters and attempts that a job left behind are deleted along with the job's end.

    Attributes:
        paused: the ids of paused serial queues that this settlement unlocks, and locks again in the same transaction.
        resumed: the names of those of these queues that the database says are not paused any more; `missing` reads it.
        passes: the shares of limits that move in the same transaction: the job that had each, and the job that has it.
        batches: the names of tasks whose jobs are batches. Such a job leaves the dead letter of its key alone, unless
            it was requeued from it. Where it was replaced and is given back, it becomes a dead letter.
        passed: the jobs to which a share moved, once the results are read.
        progress: what the attempts leave to the next attempts of their jobs.
        progressed: the ids of jobs that are over and whose rows of progress are deleted.
    """

    __slots__ = (
        "_groups",
        "_tried",
        "batches",
        "forgets",
        "passed",
        "passes",
        "paused",
        "progress",
        "progressed",
        "resumed",
    )

    def __init__(self, ends: Iterable[End] = (), *, forgets: bool = True) -> None:
        self.forgets = forgets
        self.batches: Collection[str] = ()
        self.paused: Sequence[int] = ()
        self.resumed: frozenset[str] = frozenset()
        self.passes: Sequence[tuple[int, int]] = ()
        self.passed: frozenset[int] = NOBODY
        self.progress: Sequence[Entry] = ()
        self.progressed: Sequence[int] = ()
        self._groups: dict[_Way, tuple[list[Attempt], list[tuple[Any, ...]]]] = {}
        self._tried: list[int] = []
        for end in ends:
            self.add(*end)

    def __len__(self) -> int:
        """How many attempts it ends."""
        return sum(len(attempts) for attempts, _ in self._groups.values())

    @property
    def returns(self) -> bool:
        """Whether this settlement may make a job wait again."""
        return not all(settling.ends_job for settling, _ in self._groups)

    def add(self, settling: Settling, attempt: Attempt, values: tuple[Any, ...]) -> None:
        """Add the end of one attempt."""
        attempts, rows = self._groups.setdefault((settling, attempt.claim), ([], []))
        attempts.append(attempt)
        rows.append(values)

    def add_all(self, settling: Settling, attempts: Sequence[Attempt]) -> None:
        """Add ends whose statement has no columns, which are those of nearly all jobs, without a step for each."""
        kinds = {attempt.claim for attempt in attempts}
        for kind in kinds:
            some = attempts if len(kinds) == 1 else [attempt for attempt in attempts if attempt.claim is kind]
            self._groups.setdefault((settling, kind), ([], []))[0].extend(some)

    def commands(self, *, schema: str, worker: str) -> list[Command]:
        """The statements that write this settlement, one for each kind of end, to be sent in one pipeline.

        Attempts of jobs that are over are deleted after that, but only those of jobs that were tried more than once.
        Others may have some too, since they were put off; the worker's upkeep deletes these.
        """
        commands = []
        if self.passes:
            commands.append(pass_command(self.passes, worker=worker, schema=schema))
        self._tried = []
        if self.forgets:
            for (settling, claim), (over, _) in self._sorted():
                if settling.ends_job:
                    commands += self._forget(over, claim, schema=schema, worker=worker)
                    self._tried += [attempt.job.id for attempt in over if attempt.job.attempts > 1]
        if self.progress:
            commands.append(end_command(self.progress, schema=schema, worker=worker))
        for (settling, claim), (attempts, rows) in self._sorted():
            columns = zip(*rows, strict=True) if rows else ()
            parameters = [pack(values) for pack, values in zip(settling.columns, columns, strict=True)]
            named = (*claim.fences(attempts), *(claim.compared(attempts) if settling.compares else ()))
            if settling.asks_batches:
                parameters.append(self._batches(attempts))
            statement = claim.statement(settling.statement)
            commands.append(Command.of(statement, schema, worker, *named, *parameters))
        if self._tried:
            commands.append(Command.of("forget_attempts", schema, number_array(self._tried)))
        if self.progressed:
            commands.append(forget_command(self.progressed, schema=schema))
        if self.paused:
            commands.append(Command.of("lock_paused_queues", schema, pack_array(self.paused, "int4")))
        return commands

    def missing(self, results: Sequence[PGresult]) -> set[Attempt]:
        """The attempts that this worker had lost, from the results of the settlement's statements.

        Where a statement tells whether attempts were the last of their jobs, that is written into the attempts, too.
        Two attempts of one job may be in a settlement, where the job was unlocked by force and claimed again: the time
        of the lock tells them apart.
        """
        groups = self._sorted()
        if self.paused:
            self.resumed = frozenset(row.text("queue_name") for row in binary_rows(results[-1]))
            results = results[:-1]
        if self.passes:
            self.passed = read_passed(results[0])
            results = results[1:]
        after = bool(self._tried) + bool(self.progressed)
        results = results[: len(results) - after]
        for ((settling, _), (attempts, _)), result in zip(groups, results[len(results) - len(groups) :], strict=True):
            if settling.tells_last:
                told = {_key(result, row): result.get_value(row, 2) == b"\x01" for row in range(result.ntuples)}
                for attempt in attempts:
                    attempt.last = told.get((attempt.job.id, attempt.locked_at))
        if sum(result.ntuples for result in results) == len(self):
            return set()
        found = {_key(result, row) for result in results for row in range(result.ntuples)}
        ended = (attempt for attempts, _ in self._groups.values() for attempt in attempts)
        return {attempt for attempt in ended if (attempt.job.id, attempt.locked_at) not in found}

    def _batches(self, attempts: Sequence[Attempt]) -> Parameter:
        """Which of the attempts' jobs are batches."""
        return BOOLEANS([attempt.job.task_identifier in self.batches for attempt in attempts])

    def _forget(self, over: Sequence[Attempt], claim: ClaimKind, *, schema: str, worker: str) -> list[Command]:
        """The command that deletes the dead letters of jobs that are about to end; none where no job can have any."""
        some = [attempt for attempt in over if attempt.job.key is not None or attempt.job.has_orders]
        done = [(attempt, attempt.job.key, dead_letter_of(attempt.job.flags)) for attempt in some]
        done = [one for one in done if one[1] is not None or one[2] is not None]
        if not done:
            return []
        attempts, keys, entries = zip(*done, strict=True)
        times = TIMES([claim.claimed_at(attempt) for attempt in attempts])
        which = text_array(keys), number_array(entries), times, self._batches(attempts)
        return [Command.of(claim.statement("forget_dead_letters"), schema, worker, *claim.fences(attempts)[:2], *which)]

    def _sorted(self) -> list[tuple[_Way, tuple[list[Attempt], list[tuple[Any, ...]]]]]:
        """The groups, in an order that is the same for all settlements, so that two of these cannot deadlock."""
        if len(self._groups) < 2:
            return list(self._groups.items())
        return sorted(self._groups.items(), key=lambda group: group[0][1].statement(group[0][0].statement))


async def settle(
    wire: Wire, settlement: Settlement, *, schema: str, worker: str, timeout: float = 60.0, patient: bool = True
) -> set[Attempt]:
    """Write the ends of attempts in a transaction of their own; returns the attempts that this worker had lost.

    Where `patient` is false, it hardly waits for a row that another transaction holds.
    """
    commands = [] if patient else [Command.of("hurry", schema)]
    results = await wire.send([*commands, *settlement.commands(schema=schema, worker=worker)], timeout=timeout)
    return settlement.missing(results[len(commands) :])


def _key(result: PGresult, row: int) -> tuple[int, int | None]:
    """What identifies an attempt in a result: its job's id and the time of its lock."""
    return integer(result, row), integer(result, row, 1)
