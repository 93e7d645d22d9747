"""Claims: the statements of a lane, and the one transaction that takes jobs with them.

Used by the worker's claimer. The statements are built once a lane, natively, from the templates in sql/.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, LiteralString

from backfill._native import claim_statement
from backfill.records import Job
from backfill.storage.connection import Connection
from backfill.storage.rows import decode_jobs
from backfill.storage.statements import load, quoted_schema, trusted

_FIRST_LANE_PARAMETER = {"lock_near_queues": 3, "lock_far_queues": 3, "claim": 4}


@dataclass(frozen=True, slots=True)
class LaneFilter:
    """Which jobs a lane takes; None lets any pass.

    Attributes:
        tasks: names of the tasks, wildcards already resolved.
        queues: anchored regular expressions of serial queues' names; then only serial jobs pass.
        priority: lowest and highest priority, both included.
    """

    tasks: tuple[str, ...] | None = None
    queues: tuple[str, ...] | None = None
    priority: tuple[int, int] | None = None

    @property
    def shape(self) -> tuple[bool, bool, bool]:
        """Which filters there are: what the text of a statement depends on."""
        return self.tasks is not None, self.queues is not None, self.priority is not None

    def parameters(self, task_ids: Mapping[str, int]) -> list[Any]:
        """What the statement's parameters of this lane are; a task without a row yet has no jobs either."""
        values: list[Any] = []
        if self.tasks is not None:
            values.append([task_ids[name] for name in self.tasks if name in task_ids])
        if self.queues is not None:
            values.append(list(self.queues))
        if self.priority is not None:
            values.extend(self.priority)
        return values


@dataclass(frozen=True, slots=True)
class LaneClaim:
    """How one lane claims: its own filter, less what the lanes before it take.

    Args:
        schema: the queue's schema.
        lanes: the filters of the lanes before this one, in order, and its own last; its own names its tasks.
        forbidden_flags: jobs with one of these are left alone.
    """

    schema: str
    lanes: tuple[LaneFilter, ...]
    forbidden_flags: tuple[str, ...] = ()
    _texts: tuple[LiteralString, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Build the statements once."""
        shapes = [lane.shape for lane in self.lanes]
        quoted = quoted_schema(self.schema)
        texts = tuple(
            trusted(claim_statement(load(name).text, quoted, shapes, first))
            for name, first in _FIRST_LANE_PARAMETER.items()
        )
        object.__setattr__(self, "_texts", texts)

    async def take(self, connection: Connection, *, worker: str, wanted: int, task_ids: Mapping[str, int]) -> list[Job]:
        """Claim up to `wanted` jobs for a worker, in the order of the contract.

        One transaction in one round trip: free serial queues are locked first, so that the second statement's fresh
        snapshot sees each one's true first job.
        """
        near, far, claim = self._texts
        lane = [value for filter_ in self.lanes for value in filter_.parameters(task_ids)]
        flags = list(self.forbidden_flags)
        names = {task_id: name for name, task_id in task_ids.items()}
        cursor = connection.cursor(binary=True)
        async with connection.pipeline(), connection.transaction():
            await connection.execute(near, [wanted, flags, *lane])
            await connection.execute(far, [wanted, flags, *lane])
            await cursor.execute(claim, [worker, wanted, flags, *lane])
        return [] if cursor.pgresult is None else decode_jobs(cursor.pgresult, names)


def anchored(patterns: Sequence[str]) -> tuple[str, ...]:
    """Globs (`*`, `?`) as PostgreSQL's regular expressions over a whole name."""
    return tuple(f"^(?:{''.join(map(_glob_character, pattern))})$" for pattern in patterns)


def _glob_character(character: str) -> str:
    if character == "*":
        return ".*"
    if character == "?":
        return "."
    return character if character.isalnum() or character in "_:/- " or not character.isascii() else f"\\{character}"
