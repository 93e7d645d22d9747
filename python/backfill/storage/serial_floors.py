"""Serial floors: the place before which a look at the serial jobs need not look, but for some queues.

Jobs of paused queues stay where they are, however many they are, and come first in the order of the contract. A look at
the first waiting jobs sees nothing else then. The look from the queues' side sees the others, and says where the first
of them is. Later looks begin there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Self

from backfill._native import pack_array
from backfill.storage.values import integer
from backfill.storage.wire import Parameter

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

SLACK_MICROS: Final = 250_000
"""How far a floor stays behind the time of its look, since jobs are committed a little after the time in their row."""
MOST_WATCHED: Final = 1_000
"""The most queues that are watched, as the statement has it that finds them."""
_LOWEST: Final = -32768
_HIGHEST: Final = 32767
_NEVER: Final = -(2**63)
_FOREVER: Final = 2**63 - 1
_PRIORITY, _RUN_AT, _ID, _LOOKED_AT, _WATCHED = range(4, 9)
"""The columns of the statement that finds a floor."""


@dataclass(frozen=True, slots=True)
class SerialFloor:
    """Where looks at the serial jobs begin.

    Jobs of the floor's priority that come before it are paused, or of queues that are watched. So are those of better
    priorities that were due when the floor was found. Jobs of worse priorities are all looked at.

    Attributes:
        priority: the priority of the first job that was not hidden.
        run_at: its run_at, in PostgreSQL's microseconds; the largest number where there was no such job.
        id: its id.
        swept: from which run_at on jobs of better priorities are looked at.
        watched: ids of the queues whose jobs are looked at wherever they are.
        spans: the parameters of a look; what `cover` has made of the rest.
    """

    priority: int
    run_at: int
    id: int
    swept: int
    watched: tuple[int, ...] = ()
    spans: tuple[Parameter, ...] = ()

    @classmethod
    def read(cls, result: PGresult) -> Self | None:
        """The floor that the result of lock_far_queues names; None where too many queues would have to be watched."""
        raw = result.get_value(0, _WATCHED)
        if raw is None:
            return None
        watched = tuple(map(int, raw[1:-1].split(b","))) if len(raw) > 2 else ()
        swept = integer(result, 0, _LOOKED_AT) - SLACK_MICROS
        priority, run_at, number = (integer(result, 0, column) for column in (_PRIORITY, _RUN_AT, _ID))
        return cls(priority, run_at, number, swept, watched)

    def cover(self, levels: Iterable[int]) -> Self:
        """The same with parameters for looks that go through all priorities, of which some are known to have jobs."""
        edges = [_LOWEST - 1, *sorted(levels), _HIGHEST + 1]
        spans: list[tuple[int, int, int, int]] = []
        for before, priority in pairwise(edges):
            if priority - before > 1:
                spans.append((before + 1, priority - 1, _NEVER, 0))
            if priority <= _HIGHEST:
                spans.append((priority, priority, *self._start(priority)))
        lows, highs, floors, ids = zip(*spans, strict=True)
        packed = (
            pack_array(lows, "int2"),
            pack_array(highs, "int2"),
            pack_array(floors, "timestamptz"),
            pack_array(ids, "int8"),
        )
        return replace(self, spans=packed)

    def watching(self, queues: Iterable[int]) -> Self | None:
        """The same with more queues that are watched; None where these are too many."""
        watched = tuple(dict.fromkeys((*self.watched, *queues)))
        return replace(self, watched=watched) if len(watched) <= MOST_WATCHED else None

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The parameters of a look, but for those that all looks have."""
        return (*self.spans, pack_array(self.watched, "int4"))

    def _start(self, priority: int) -> tuple[int, int]:
        """From which run_at and id on the jobs of a priority are looked at."""
        if priority > self.priority and self.run_at != _FOREVER:
            return _NEVER, 0
        if priority == self.priority and self.run_at <= self.swept:
            return self.run_at, self.id
        return self.swept, 0
