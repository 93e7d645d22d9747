"""Claims: the statements of a lane, and what one look at the queue asks for and brings back.

Used by the worker. The statements are built natively, once for each lane, from the templates in sql/. Parallel jobs are
claimed by one statement. Where serial jobs may wait, free queues are locked by statements before it, so that the
claim's fresh snapshot sees the true first job of each queue.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count, pairwise
from typing import TYPE_CHECKING, Final

from backfill._native import Job, pack_array
from backfill.storage.accepting import flag_parameters, lane_statement
from backfill.storage.arrays import number_array, text_array
from backfill.storage.rows import decode_jobs
from backfill.storage.serial_floors import SerialFloor
from backfill.storage.statements import load, quoted_schema
from backfill.storage.ties import NO_TIE, Place, Tie
from backfill.storage.values import double, integer
from backfill.storage.wire import Command, Parameter, Wire

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

LOWEST: Final = -32768
HIGHEST: Final = 32767
NEVER: Final = -(2**63)
"""-infinity as PostgreSQL stores a time: a floor that leaves out no job."""
UNBOUNDED: Final = 2**62
"""A budget of bytes that no payloads exceed."""
FIRST_LANE_PARAMETER: Final = {
    "lock_near_queues": 5,
    "lock_beyond_queues": 8,
    "lock_known_queues": 4,
    "lock_far_queues": 3,
    "claim": 9,
}
"""The first of the parameters that a lane adds to each statement of a claim."""
_FIRST_TIED_PARAMETER: Final = {"claim_tied": 13}
_FIRST_PARALLEL_PARAMETER: Final = {
    "claim_parallel": 9,
    "claim_parallel_tied": 13,
    "hold_window": 9,
    "hold_window_tied": 13,
}
Bound = tuple[tuple[str, ...], tuple[str, ...]]
_TAKE_TIMEOUT: Final = 60.0
_numbers = count()


@dataclass(frozen=True, slots=True)
class LaneFilter:
    """Which jobs a lane takes; a filter that is None lets any job pass.

    Attributes:
        tasks: names of the tasks, wildcards already resolved.
        queues: anchored regular expressions for names of serial queues; with this filter only serial jobs pass.
        priority: the lowest and the highest priority, both included.
    """

    tasks: tuple[str, ...] | None = None
    queues: tuple[str, ...] | None = None
    priority: tuple[int, int] | None = None

    @property
    def shape(self) -> tuple[bool, bool, bool]:
        """Which of the three filters are set; the text of a statement depends on that."""
        return self.tasks is not None, self.queues is not None, self.priority is not None

    def parameters(self, task_ids: Mapping[str, int]) -> list[str]:
        """A statement's parameters for this lane; tasks without a row yet are left out, since they have no jobs."""
        values: list[str] = []
        if self.tasks is not None:
            values.append(number_array([task_ids[name] for name in self.tasks if name in task_ids]))
        if self.queues is not None:
            values.append(text_array(self.queues))
        if self.priority is not None:
            values.extend(map(str, self.priority))
        return values


@dataclass(frozen=True, slots=True)
class Spans:
    """Where a look begins: spans of priorities, in order.

    A span is either one priority that has a floor, or all the priorities between two of those.

    Attributes:
        lows: the first priority of each span.
        highs: the last priority of each span.
        floors: the run_at from which each span of one priority is read, in PostgreSQL's microseconds.
    """

    lows: bytes
    highs: bytes
    floors: bytes

    @classmethod
    def of(cls, floors: Mapping[int, int]) -> Spans:
        """Spans that cover every priority; each priority with a floor is a span by itself."""
        edges = [LOWEST - 1, *sorted(floors), HIGHEST + 1]
        spans = []
        for before, priority in pairwise(edges):
            if priority - before > 1:
                spans.append((before + 1, priority - 1, NEVER))
            if priority <= HIGHEST:
                spans.append((priority, priority, floors[priority]))
        lows, highs, starts = zip(*spans, strict=True)
        return cls(pack_array(lows, "int2"), pack_array(highs, "int2"), pack_array(starts, "timestamptz"))


EVERYTHING: Final = Spans.of({})
NO_SPANS: Final = Spans(pack_array([], "int2"), pack_array([], "int2"), pack_array([], "timestamptz"))
"""Where a look begins that takes no parallel jobs."""


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at the queue asks for.

    Attributes:
        wanted: how many jobs to claim at most.
        spans: where the look begins.
        scan_jobs: whether serial queues are looked for among the first waiting jobs.
        scan_queues: whether serial queues are also looked for from the queues' side, where blocked jobs may hide some.
        full: whether the look begins at the very start, before all floors.
        era: a number that says which floors the look began with.
        known: ids of serial queues that were seen to be free and to have jobs; these are tried, and no others are
            looked for.
        beyond: the floor beyond which serial queues are looked for, where jobs of paused queues come first.
        returns: a number that says which jobs and queues had come back before the look began.
        slots: how many jobs are wanted however large their payloads are, since slots are free for them.
        budget: how many bytes the payloads of the other jobs may have, all together.
        behind: whether the look is made only for jobs before the floors, beside the looks that begin at the floors.
        tracked: whether it passes over jobs of tasks that are left out, or of other flags, so that it gives the place
            where it ends.
        tie: the place among the jobs of one run_at where it begins; no jobs that come after these are taken. None where
            it begins at the floors alone.
        window: whether it is made for a window: it holds parallel jobs by the locks of their rows, and claims none.
        serial_alone: whether it takes serial jobs alone, since windows take the parallel ones.
    """

    wanted: int
    spans: Spans = EVERYTHING
    scan_jobs: bool = True
    scan_queues: bool = True
    full: bool = True
    era: int = 0
    known: tuple[int, ...] = ()
    beyond: SerialFloor | None = None
    returns: int = 0
    slots: int = 0
    budget: int = UNBOUNDED
    behind: bool = False
    tracked: bool = False
    tie: Tie | None = None
    window: bool = False
    serial_alone: bool = False

    @property
    def is_parallel(self) -> bool:
        """Whether it looks for no serial jobs."""
        return not self.known and not self.scan_jobs and self.beyond is None


@dataclass(frozen=True, slots=True)
class Taken:
    """What a look brought back.

    Attributes:
        jobs: the claimed jobs, in the contract's order.
        queues: how many free serial queues the look found among the first waiting jobs, or among the known queues.
        far_queues: how many free serial queues it found from the queues' side.
        more: ids of the free queues that it saw from the queues' side, in the order of their first jobs.
        hidden: whether more free queues may lie behind the first waiting jobs.
        near_seconds: how many seconds the look for queues among the first waiting jobs took on the server.
        far_seconds: how many seconds the look from the queues' side took on the server.
        cut: whether the look left jobs that it had found, since their payloads together were too large.
        place: where the last of the parallel jobs were in the table; None where it is not known.
        floor: where looks at serial queues may begin, as the look from the queues' side has found; None where it is not
            known.
    """

    jobs: list[Job]
    queues: int = 0
    far_queues: int = 0
    more: tuple[int, ...] = ()
    hidden: bool = False
    near_seconds: float = 0.0
    far_seconds: float = 0.0
    cut: bool = False
    place: Place | None = None
    floor: SerialFloor | None = None


@dataclass(frozen=True, slots=True)
class LaneClaim:
    """How one lane claims: the jobs that pass its own filter, except those that the lanes before it take.

    Args:
        schema: the queue's schema.
        lanes: the filters of the lanes before this one, in order, and last its own, which always names its tasks.
        forbidden_flags: jobs with one of these flags are left alone.
        accepted_flags: only jobs with one of these flags are taken; any job if there are none.
    """

    schema: str
    lanes: tuple[LaneFilter, ...]
    forbidden_flags: tuple[str, ...] = ()
    accepted_flags: tuple[str, ...] = ()
    _texts: dict[str, str] = field(init=False, repr=False)
    _number: int = field(init=False, repr=False, default_factory=lambda: next(_numbers))

    def __post_init__(self) -> None:
        """Build the statements once."""
        quoted, accepted = quoted_schema(self.schema), self.accepted_flags
        texts = {
            name: lane_statement(load(name).text, quoted, [lane.shape for lane in self.lanes], first, accepted)
            for name, first in {**FIRST_LANE_PARAMETER, **_FIRST_TIED_PARAMETER}.items()
        }
        if self.takes_parallel:
            shapes = [lane.shape for lane in self._parallel_lanes]
            for name, first in _FIRST_PARALLEL_PARAMETER.items():
                texts[name] = lane_statement(load(name).text, quoted, shapes, first, accepted)
        object.__setattr__(self, "_texts", texts)

    def narrowed(self, tasks: Sequence[str]) -> tuple[LaneFilter, ...]:
        """The filters of a claim of some of the lane's tasks alone, as `lanes`; the jobs stay in their lane."""
        return (*self.lanes[:-1], replace(self.lanes[-1], tasks=tuple(tasks)))

    @property
    def takes_parallel(self) -> bool:
        """Whether the lane takes parallel jobs; one with a queue filter takes only serial jobs."""
        return self.lanes[-1].queues is None

    @property
    def has_flags(self) -> bool:
        """Whether it takes jobs by their flags."""
        return bool(self.accepted_flags or self.forbidden_flags)

    @property
    def _parallel_lanes(self) -> tuple[LaneFilter, ...]:
        """The filters of the lanes that take parallel jobs."""
        return tuple(lane for lane in self.lanes if lane.queues is None)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names of the tasks that the lane takes."""
        return self.lanes[-1].tasks or ()

    def bind(self, task_ids: Mapping[str, int], left_out: frozenset[str] = frozenset()) -> Bound:
        """The parameters of all lanes, and of those that take parallel jobs, for the ids that tasks have now.

        Those of the accepted flags stand before them.

        Args:
            task_ids: the tasks' ids by their names.
            left_out: tasks whose jobs this lane does not take for a while. The filters of the lanes before it keep
                them: else their jobs would come to this lane.
        """
        *before, own = self.lanes
        own_ids = {name: number for name, number in task_ids.items() if name not in left_out}
        mine = own.parameters(own_ids)
        every = [value for lane in before for value in lane.parameters(task_ids)] + mine
        parallel = [value for lane in before if lane.queues is None for value in lane.parameters(task_ids)]
        flags = flag_parameters(self.accepted_flags)
        return (*flags, *every), (*flags, *parallel, *(mine if self.takes_parallel else ()))

    def commands(self, look: Look, *, worker: str, bound: Bound) -> list[Command]:
        """The statements of a look, to be sent in one pipeline."""
        flags, wanted, spans = text_array(self.forbidden_flags), str(look.wanted), look.spans
        front: tuple[Parameter, ...] = (spans.lows, spans.highs)
        claimed = NO_SPANS if look.serial_alone else spans
        claim: tuple[Parameter, ...] = (
            worker, wanted, flags, claimed.lows, claimed.highs, claimed.floors, str(look.slots), str(look.budget)
        )  # fmt: skip
        every, parallel = bound
        kind = ""
        if look.tracked:
            kind = "_tied"
            claim += NO_TIE if look.tie is None else look.tie.parameters
        if look.known:
            known = pack_array(look.known, "int4")
            return [
                self._command("lock_known_queues", (wanted, flags, known, *every)),
                self._command(f"claim{kind}", (*claim, *every)),
            ]
        if look.beyond is not None:
            return [
                self._command("lock_beyond_queues", (wanted, flags, *look.beyond.parameters, *every)),
                self._command(f"claim{kind}", (*claim, *every)),
            ]
        if look.is_parallel and self.takes_parallel:
            name = "hold_window" if look.window else "claim_parallel"
            return [self._command(f"{name}{kind}", (*claim, *parallel))]
        commands = [self._command("lock_near_queues", (wanted, flags, *front, *every))]
        if look.scan_queues:
            commands.append(self._command("lock_far_queues", (wanted, flags, *every)))
        return [*commands, self._command(f"claim{kind}", (*claim, *every))]

    def count(self, look: Look) -> int:
        """How many statements a look takes."""
        if look.known or look.beyond is not None:
            return 2
        if look.is_parallel and self.takes_parallel:
            return 1
        return 3 if look.scan_queues else 2

    def read(self, results: Sequence[PGresult], names: Mapping[int, str], *, tracked: bool = False) -> Taken:
        """What the results of a look's statements say.

        Args:
            results: the results of the look's commands, in their order.
            names: the tasks' names by their ids.
            tracked: whether the look was tracked.
        """
        claimed = results[-1]
        jobs = decode_jobs(claimed, names, ordered=True)
        last = claimed.nfields - 1
        raw = claimed.get_value(0, last) if jobs and tracked else None
        place = None if raw is None else Place.read(raw)
        cut = bool(jobs) and claimed.get_value(0, last - tracked) is not None
        if len(results) == 1:
            return Taken(jobs, cut=cut, place=place)
        queues, hidden, near = (
            integer(results[0]),
            results[0].get_value(0, 1) == b"true",
            double(results[0], 0, 3) or 0.0,
        )
        if len(results) == 2:
            return Taken(jobs, queues, hidden=hidden, near_seconds=near, cut=cut, place=place)
        seen = results[1].get_value(0, 3) or b"{}"
        return Taken(
            jobs,
            queues,
            integer(results[1]),
            tuple(map(int, seen[1:-1].split(b","))) if len(seen) > 2 else (),
            hidden,
            near,
            double(results[1], 0, 2) or 0.0 if hidden else 0.0,
            cut,
            place,
            SerialFloor.read(results[1]) if hidden else None,
        )

    async def take(self, wire: Wire, *, worker: str, wanted: int, task_ids: Mapping[str, int]) -> list[Job]:
        """Claim up to `wanted` of all waiting jobs for a worker, in a transaction of its own."""
        commands = self.commands(Look(wanted), worker=worker, bound=self.bind(task_ids))
        results = await wire.send(commands, timeout=_TAKE_TIMEOUT)
        return self.read(results, {number: name for name, number in task_ids.items()}).jobs

    def _command(self, name: str, parameters: Iterable[Parameter]) -> Command:
        return Command(f"backfill.{name}.{self._number}", self._texts[name], tuple(parameters))


def anchored(patterns: Sequence[str]) -> tuple[str, ...]:
    """Globs (`*`, `?`) as PostgreSQL's regular expressions over a whole name."""
    return tuple(f"^(?:{''.join(map(_glob_character, pattern))})$" for pattern in patterns)


def _glob_character(character: str) -> str:
    if character == "*":
        return ".*"
    if character == "?":
        return "."
    return character if character.isalnum() or character in "_:/- " or not character.isascii() else f"\\{character}"
