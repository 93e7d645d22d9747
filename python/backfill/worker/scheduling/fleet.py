"""What a scheduler knows of the fleet: which workers live, which items they declare, and what operators have said.

Each look costs one statement as long as nothing has changed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from datetime import datetime

from backfill.client.schedule_table import ScheduleTable
from backfill.cron.standing import Conflict, Declarer, InForce, Said, standing
from backfill.storage.schedules import Crontab, LiveWorker, Look

logger = logging.getLogger(__name__)

_MOST_WARNED = 10_000
_Lines = Mapping[str, str]


class Fleet:
    """Reads what stands, and warns of items that live workers declare with different texts.

    Args:
        table: reads the database.
        lines: the items that this worker's own code declares.
    """

    def __init__(self, table: ScheduleTable, lines: _Lines) -> None:
        self._table = table
        self._own_lines = dict(lines)
        self._own_digest = Crontab(self._own_lines).digest if lines else None
        self._own_start: datetime | None = None
        self._lines: dict[str, _Lines] = {}
        self._said: tuple[str, dict[str, Said]] | None = None
        self._merged_from: object = None
        self._warned = set[tuple[str, str, str]]()

    async def follow(self, look: Look, worker: str) -> dict[str, InForce] | None:
        """Return the items that are in force; None if nothing has changed since the last call.

        Args:
            look: what was just read.
            worker: this worker's id.
        """
        workers = self._with_own(look, worker)
        merged_from = look.said, [(one.id, one.started_at, one.digest, one.schedules) for one in workers]
        if self._merged_from == merged_from:
            return None
        await self._read_lines({one.digest for one in workers if one.digest is not None})
        if self._said is None or self._said[0] != look.said:
            self._said = look.said, await self._read_said()
        declarers = [
            Declarer(one.id, one.started_at, self._lines.get(one.digest or "", {}), schedules=one.schedules)
            for one in workers
        ]
        found = standing(declarers, self._said[1])
        self._warn(found.conflicts)
        if all(one.digest is None or one.digest in self._lines for one in workers):
            self._merged_from = merged_from  # else look again, since the items of a worker are not there yet
        return found.items

    def doubt(self) -> None:
        """Read again at the next call what operators have said, since it has changed."""
        self._said = self._merged_from = None

    def _with_own(self, look: Look, worker: str) -> tuple[LiveWorker, ...]:
        """The live workers, with this one in any case: after an outage it may look before its heartbeat has come.

        Of workers that declare the same, the look names the first and the last that was started, and this worker is
        one of them or was started between the two.
        """
        if self._own_start is None:
            self._own_start = look.clock
        for one in look.workers:
            if one.id == worker:
                self._own_start = one.started_at
        if any(one.digest == self._own_digest and one.schedules for one in look.workers):
            return look.workers
        return (*look.workers, LiveWorker(worker, self._own_start, self._own_digest, schedules=True))

    async def _read_lines(self, digests: set[str]) -> None:
        """Read the items of these digests, unless they are known, and forget all others."""
        known = {digest: lines for digest, lines in self._lines.items() if digest in digests}
        if self._own_digest is not None:
            known[self._own_digest] = self._own_lines
        if missing := digests - known.keys():
            known |= await self._table.find_crontabs(missing)
        self._lines = known

    async def _read_said(self) -> dict[str, Said]:
        return {
            row.identifier: Said(
                line=row.line,
                paused=row.paused_at is not None,
                removed=row.removed_at is not None,
                since=row.since,
                revision=row.revision,
            )
            for row in await self._table.find_said_schedules()
        }

    def _warn(self, conflicts: Iterable[Conflict]) -> None:
        if len(self._warned) > _MOST_WARNED:
            self._warned.clear()
        for conflict in conflicts:
            pair = conflict.identifier, conflict.line, conflict.other_line
            if pair in self._warned:
                continue
            self._warned.add(pair)
            logger.warning(
                "recurring job %r is declared with different texts: that of worker %s, which was started last, counts; "
                "worker %s declares another one. This is usual while a deployment lasts; else give one of the two "
                "another id",
                conflict.identifier, conflict.worker, conflict.other_worker,
                extra={"schedule": conflict.identifier},
            )  # fmt: skip
