"""Groups rows with keys so that one statement can write each group: one mode, and no key twice.

Used by `writing` and `producers`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from backfill.client.prepare import JobShape
from backfill.jobs import JobKeyMode

Placed = tuple[int, JobShape, bytes]
"""A row: the place of its id in the result, the job's shape, and its payload."""


def by_mode(rows: Iterable[Placed]) -> Iterable[tuple[JobKeyMode, list[Placed]]]:
    """Group rows by their modes, in the order in which each mode first occurs."""
    groups: dict[JobKeyMode, list[Placed]] = defaultdict(list)
    for row in rows:
        groups[row[1].mode].append(row)
    return groups.items()


def rounds(rows: Iterable[Placed]) -> Iterator[list[Placed]]:
    """Split rows with keys into groups in which no key comes twice; the rows of one key stay in their order."""
    groups: list[list[Placed]] = []
    seen: dict[str | None, int] = defaultdict(int)
    for row in rows:
        turn = seen[row[1].key]
        seen[row[1].key] += 1
        if turn == len(groups):
            groups.append([])
        groups[turn].append(row)
    yield from groups
