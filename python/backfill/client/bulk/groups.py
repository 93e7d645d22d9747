"""Rows with keys in groups that one statement can write: of one mode, and in which no key comes twice.

Used by `writing`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from backfill.client.prepare import JobShape
from backfill.jobs import JobKeyMode

Placed = tuple[int, JobShape, bytes]
"""Where a row's id goes, what is said of the job but its payload, and that."""


def by_mode(rows: Iterable[Placed]) -> Iterable[tuple[JobKeyMode, list[Placed]]]:
    """Rows by their modes, in the order in which these come first."""
    groups: dict[JobKeyMode, list[Placed]] = defaultdict(list)
    for row in rows:
        groups[row[1].mode].append(row)
    return groups.items()


def rounds(rows: Iterable[Placed]) -> Iterator[list[Placed]]:
    """Rows with keys in groups in which no key comes twice; a key's rows stay in their order from group to group."""
    groups: list[list[Placed]] = []
    seen: dict[str | None, int] = defaultdict(int)
    for row in rows:
        turn = seen[row[1].key]
        seen[row[1].key] += 1
        if turn == len(groups):
            groups.append([])
        groups[turn].append(row)
    yield from groups
