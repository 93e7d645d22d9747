"""Claims of jobs that have a value of a limit's `by`, such as those of one customer: many values by one look.

Used by the worker's sources; shares.py says what shares are, and how jobs without a value are claimed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Final

import orjson

from backfill._native import Job
from backfill.storage.accepting import flag_parameters, lane_statement
from backfill.storage.arrays import number_array, text_array
from backfill.storage.claims import Bound, LaneFilter
from backfill.storage.results import binary_rows
from backfill.storage.rows import decode_jobs
from backfill.storage.shares import Share
from backfill.storage.statements import load, quoted_schema
from backfill.storage.wire import Command

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

_counter: Final = count()


@dataclass(frozen=True, slots=True)
class ValueLook:
    """What one look for jobs with values asks for.

    Attributes:
        wanted: how many jobs it would start.
        after: the value behind which the look begins, so that looks go round all values in turn; None for the first.
        ahead: values of which the worker has live shares, with the number of jobs that it would claim ahead of each.
        values: how many values are looked at.
    """

    wanted: int
    after: str | None = None
    ahead: Mapping[str, int] = field(default_factory=dict)
    values: int = 500


@dataclass(frozen=True, slots=True)
class ValuesTaken:
    """What a look for jobs with values brought.

    Attributes:
        jobs: the claimed jobs, in the contract's order.
        shares: what each of them has, by its id.
        after: the value behind which the next look begins; None where this one came to the last value.
        wait: the seconds after which asking again may give more, since a rate or a breaker says so; None where nobody
            can say that.
        full: whether jobs were left alone since all slots of their values are taken.
        busy: whether somebody else was being served just now, so that it is worth asking again in some milliseconds.
        stale: whether the limit is not what the worker knows.
    """

    jobs: list[Job]
    shares: dict[int, Share]
    after: str | None = None
    wait: float | None = None
    full: bool = False
    busy: bool = False
    stale: bool = False


@dataclass(frozen=True, slots=True)
class ValueClaim:
    """How a lane claims the jobs of one limited task that have a value of the limit's `by`.

    One look takes two statements, however many values there are. The first looks at the next values that have waiting
    jobs, takes the first jobs of all of them in the contract's order as long as their values have shares, and locks
    them; the second claims these.

    Args:
        schema: the queue's schema.
        task: the name under which the limit stands.
        by: the `by` of the limit as the worker knows it.
        lanes: as for `LimitedClaim`.
        forbidden_flags: jobs with one of these flags are left alone.
        accepted_flags: only jobs with one of these flags are taken; any job if there are none.
    """

    schema: str
    task: str
    by: str
    lanes: tuple[LaneFilter, ...]
    forbidden_flags: tuple[str, ...] = ()
    accepted_flags: tuple[str, ...] = ()

    _text: str = field(init=False, repr=False)
    _number: int = field(init=False, repr=False, default_factory=lambda: next(_counter))

    def __post_init__(self) -> None:
        """Build the statement once."""
        shapes = [lane.shape for lane in self.lanes]
        template, quoted = load("take_values").text, quoted_schema(self.schema)
        text = lane_statement(template, quoted, shapes, 11, self.accepted_flags)
        object.__setattr__(self, "_text", text)

    def bind(self, task_ids: Mapping[str, int]) -> Bound:
        """The parameters of all lanes, and the ids of the tasks, for the ids that tasks have now."""
        lanes = tuple(value for lane in self.lanes for value in lane.parameters(task_ids))
        lanes = (*flag_parameters(self.accepted_flags), *lanes)
        return lanes, (number_array([task_ids[name] for name in self.lanes[-1].tasks or () if name in task_ids]),)

    def commands(self, look: ValueLook, *, worker: str, bound: Bound) -> list[Command]:
        """The two statements of a look, to be sent in one pipeline after the settlements."""
        lanes, ids = bound
        wanted, flags = str(look.wanted), text_array(self.forbidden_flags)
        ahead = text_array(look.ahead.keys()), number_array(look.ahead.values())
        values = (worker, wanted, flags, self.task, self.by, *ids, look.after, str(look.values), *ahead)
        take = Command(f"backfill.take_values.{self._number}", self._text, (*values, *lanes))
        return [take, Command.of("claim_taken", self.schema, worker)]

    def read(self, results: Sequence[PGresult], names: Mapping[int, str]) -> ValuesTaken:
        """What the results of the two statements say."""
        row = next(binary_rows(results[0]))
        rows = orjson.loads(row.raw("shares") or b"[]")
        return ValuesTaken(
            decode_jobs(results[1], names, ordered=True),
            {job: Share(value, slot, start or 0.0, start is not None) for job, value, slot, start in rows},
            None if row.raw("after") is None else row.text("after"),
            row.double("wait"),
            row.flag("is_full"),
            row.flag("is_busy"),
            row.flag("is_stale"),
        )
