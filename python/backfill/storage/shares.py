"""Shares: how a worker asks for a part of a limit that holds for the whole fleet, and claims no more than it got.

Used by the worker's sources. A source stands for one limited task in one lane. Its look is a few commands, sent in the
worker's usual pipeline after the settlements, so that asking, claiming and settling are one transaction and one round
trip:

- `take_command`, then the commands of a `LimitedClaim`: jobs of a task whose limit has no `by`, and those jobs of a
  task with a `by` whose payload has no value there.
- the commands of a `ValueClaim` (value_claims.py): all jobs that have a value, whatever their values, by one look.

A limit that lets `most` jobs run has as many slots. A share is the row of a slot: it names the job that has the slot,
and the worker. It is live while that job is locked by that worker, whoever ends that. So nothing has to give a share
back: whoever asks next finds that the slot's job is not locked by its worker any more, and takes the slot.
docs/decisions/0010-shares.md says why.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from backfill.records import LIMITED_FLAG
from backfill.storage.accepting import lane_statement
from backfill.storage.arrays import number_array
from backfill.storage.claims import FIRST_LANE_PARAMETER, Bound, LaneClaim, LaneFilter, Look, Taken
from backfill.storage.results import BinaryRow, Result, binary_rows
from backfill.storage.statements import load, quoted_schema
from backfill.storage.texts import PARTS
from backfill.storage.wire import Command

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

_SHARES: Final = re.compile(r"^ *-- shares: .*\n", re.MULTILINE)
"""Where the claim of a limited task writes its shares."""


@dataclass(frozen=True, slots=True)
class EffectiveLimit:
    """What holds for a task in the whole fleet now; a task without a limit has none.

    Attributes:
        task: the task's name. Jobs that stand under one of its aliases count for the same limit.
        most: how many of its jobs may run at once; None where only their rate is limited.
        by: the field of the payload whose values have a limit each; None where all jobs have one together.
        rate_count: how many may start in a period; None where their rate is not limited.
        rate_micros: the period in microseconds.
        burst: how many may start at once after a pause.
        closed_until: the time in PostgreSQL's microseconds until which none may start; None where there is none.
        probing: whether a circuit breaker lets one job at a time try. Nothing is claimed ahead then.
        source: who says so: `operator`, `breaker`, or the id of the worker that declares it.
    """

    task: str
    most: int | None
    by: str | None
    rate_count: int | None
    rate_micros: int | None
    burst: int
    closed_until: int | None
    probing: bool
    source: str

    def begins_to_count(self, before: EffectiveLimit | None) -> bool:
        """Whether it counts jobs that the limit before it did not count, or not in this way."""
        if self.most is None or self.probing:
            return False
        return (
            before is None or before.most is None or before.probing or (before.task, before.by) != (self.task, self.by)
        )


@dataclass(frozen=True, slots=True)
class ShareAsk:
    """What a source asks for the jobs of its task that have no value.

    Attributes:
        task: the name under which the limit stands: the task's own, never an alias.
        wanted: how many jobs it would start.
        ahead: how many more it would claim without a share, to which it will pass shares of its own.
        by: the `by` of the limit as the worker knows it. Where another one holds, the grant is `stale`.
    """

    task: str
    wanted: int
    ahead: int = 0
    by: str | None = None


@dataclass(frozen=True, slots=True)
class Grant:
    """What a source got.

    Attributes:
        granted: how many of the claimed jobs have a share: the first ones, in the order in which the claim gives them.
            Those beyond are ahead: they wait in the worker for a share that is passed to them.
        wait: the seconds after which asking again may give more, exactly; None where nobody can say that.
        full: whether fewer were granted than wanted since all slots are taken.
        busy: whether somebody else was being served just now, so that it is worth asking again in some milliseconds.
        stale: whether the limit is not what the worker knows: it reads the limits again, then asks.
        starts: for a limit with a rate, when each of the granted may start, in seconds from the answer.
        slots: for a limit with `most`, the number of the slot of each of the granted, from 1. A share whose slot is
            beyond the limit's `most`, since that was lowered, must not be passed to another job.
    """

    granted: int
    wait: float | None = None
    full: bool = False
    busy: bool = False
    stale: bool = False
    starts: tuple[float, ...] = ()
    slots: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class LimitedClaim:
    """How a lane claims the jobs of one limited task that have no value: `LaneClaim`'s looks, within a quota.

    The commands of a look follow `take_command` in the same pipeline, whose grant is their quota. Where it is zero they
    do nothing.

    Args:
        schema: the queue's schema.
        lanes: the filters of the lanes before this one, in order, and last its own, which names the limited task and
            its aliases, and no others.
        by: the `by` of the limit. Jobs that have a value there are left out, since a `ValueClaim` takes them.
        forbidden_flags: jobs with one of these flags are left alone.
        accepted_flags: only jobs with one of these flags are taken; any job if there are none.
    """

    schema: str
    lanes: tuple[LaneFilter, ...]
    by: str | None = None
    forbidden_flags: tuple[str, ...] = ()
    accepted_flags: tuple[str, ...] = ()
    _claim: LaneClaim = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Build the statements once."""
        left = self.forbidden_flags if self.by is None else (*self.forbidden_flags, LIMITED_FLAG)
        claim = LaneClaim(self.schema, self.lanes, left, self.accepted_flags)
        quoted, shapes = quoted_schema(self.schema), [lane.shape for lane in self.lanes]
        texts = {
            name: lane_statement(limited(name), quoted, shapes, first, self.accepted_flags)
            for name, first in FIRST_LANE_PARAMETER.items()
        }
        object.__setattr__(claim, "_texts", texts)
        object.__setattr__(self, "_claim", claim)

    def bind(self, task_ids: Mapping[str, int]) -> Bound:
        """As `LaneClaim.bind`."""
        return self._claim.bind(task_ids)

    def commands(self, look: Look, *, worker: str, bound: Bound) -> list[Command]:
        """The statements of a look, as `LaneClaim.commands`; `look.wanted` is what the ask wants, and ahead."""
        look = replace(look, tracked=False, tie=None)  # there is no form of these for limited tasks
        if look.is_parallel and self._claim.takes_parallel:
            # The claim of both kinds of jobs, after no queue was locked: its last part is also the one with the shares.
            return self._claim.commands(replace(look, known=(0,)), worker=worker, bound=bound)[-1:]
        return self._claim.commands(look, worker=worker, bound=bound)

    def count(self, look: Look) -> int:
        """How many statements a look takes."""
        return self._claim.count(look)

    def read(self, results: Sequence[PGresult], names: Mapping[int, str]) -> Taken:
        """What the results of a look's statements say; the jobs are in the contract's order."""
        return self._claim.read(results, names)


@dataclass(frozen=True, slots=True)
class Share:
    """What a claimed job has.

    Attributes:
        value: the value for which it counts; an empty text where it has none.
        slot: the number of its slot; None where the limit has no `most`.
        start: in how many seconds from the answer it may start.
        has_share: whether it may start; where not, it is ahead and waits for a share of its value.
    """

    value: str
    slot: int | None = None
    start: float = 0.0
    has_share: bool = True


def limited(name: str) -> str:
    """The template of a claim's statement, for the claim of a limited task.

    Where the usual statement takes as many as are wanted, this one takes no more than the quota that `take_command`
    left in the transaction. The claim itself also writes the shares.
    """
    statement = load(name)
    wanted = f"${[word for word, _ in statement.params].index('wanted') + 1}::integer"
    text = statement.text.replace(wanted, f"least({wanted}, current_setting('backfill.quota')::integer)")
    return _SHARES.sub(lambda _: PARTS["written_shares"], text)


def take_command(ask: ShareAsk, *, schema: str) -> Command:
    """The statement that takes shares; it stands after the settlements and right before a `LimitedClaim`'s commands."""
    return Command.of("take_shares", schema, ask.task, ask.by, str(ask.wanted), str(ask.ahead))


def read_grants(result: Result) -> Grant:
    """What the result of `take_command` says."""
    row = next(binary_rows(result))
    granted, first, step = row.integer("granted"), row.double("first_start"), row.double("step")
    starts = () if first is None else tuple(max(first + number * (step or 0.0), 0.0) for number in range(granted))
    return Grant(
        granted,
        row.double("wait"),
        row.flag("is_full"),
        row.flag("is_busy"),
        row.flag("is_stale"),
        starts,
        tuple(_numbers(row.text("slots"))),
    )


def pass_command(passes: Iterable[tuple[int, int]], *, worker: str, schema: str) -> Command:
    """The statement that passes shares from jobs that end to jobs that this worker has claimed.

    It stands in the same transaction as the settlement that ends these jobs. Where a share went through several jobs
    meanwhile, one pass from the first to the one that has it now is enough.

    Args:
        passes: pairs of the job that had the share when the server last heard of it, and the job that has it now.
        worker: the worker's id.
        schema: the queue's schema.
    """
    pairs = list(passes)
    ended, begun = [number_array(numbers) for numbers in zip(*pairs, strict=True)] if pairs else ("{}", "{}")
    return Command.of("pass_shares", schema, worker, ended, begun)


def read_passed(result: Result) -> frozenset[int]:
    """The ids of the jobs to which a share was passed, from the result of `pass_command`.

    A job that is missing here runs without a share: its predecessor's lock, and with it the share, was taken from this
    worker before, as it is from one that was thought dead.
    """
    return frozenset(row.integer("job_id") for row in binary_rows(result))


def read_limits(result: Result) -> dict[str, EffectiveLimit]:
    """The limits that hold now, by task, from the binary result of find_limits."""
    return {row.text("task"): _limit(row) for row in binary_rows(result)}


def read_swept(result: Result) -> int:
    """Of how many values a sweep has deleted slots, from the binary result of sweep_shares."""
    return next(binary_rows(result)).integer("swept")


def _limit(row: BinaryRow) -> EffectiveLimit:
    def number(name: str) -> int | None:
        return None if row.raw(name) is None else row.integer(name)

    return EffectiveLimit(
        row.text("task"),
        number("most"),
        None if row.raw("by_path") is None else row.text("by_path"),
        number("rate_count"),
        number("rate_micros"),
        row.integer("burst"),
        number("closed_until"),
        row.flag("probing"),
        row.text("source"),
    )


def _numbers(array: str) -> list[int]:
    """The numbers of an array in PostgreSQL's text form; none for an empty text."""
    return [int(word) for word in array[1:-1].split(",")] if len(array) > 2 else []
