"""An old snapshot costs the waits nothing: they stay what they were before it was taken, however long it is held."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sides.held import before_and_under
from sides.ratio import Figure

Record = Callable[[Figure], Figure]
pytestmark = pytest.mark.timeout(1800)


async def _waits(dsn: str, record: Record, name: str, most: tuple[float, float], **shape: float) -> list[Figure]:
    """The two figures of one run: the medians' ratio, and that of the 99th percentiles."""
    readers, processes = bool(shape["readers"]), int(shape["processes"])
    before, under = await before_and_under(
        dsn, processes=processes, part=shape["part"], under=shape["under"], readers=readers
    )
    figures = []
    for what, wanted, ours, theirs in zip(("p50", "p99"), most, under, before, strict=True):
        figures.append(
            record(Figure(f"{what} of the wait {name}", "ms", wanted, less=True, ours=[ours], theirs=[theirs]))
        )
    return figures


async def test_waits_under_an_old_snapshot(dsn: str, record: Record) -> None:
    """800 jobs/s on 32 slots: after a minute p50 is at most 1.5 times what it was before, p99 3 times (room for noise)."""
    name = "in the last 20 of 60 s under an old snapshot, against before it"
    for figure in await _waits(dsn, record, name, (1.5, 3.0), processes=1, part=20, under=60, readers=False):
        assert figure.holds, figure


@pytest.mark.long
@pytest.mark.parametrize("readers", [False, True], ids=["one xid", "four readers"])
@pytest.mark.parametrize("processes", [1, 4])
async def test_waits_after_ten_minutes(dsn: str, record: Record, processes: int, readers: bool) -> None:
    """The last of ten minutes against the one before the snapshot was taken: p50 and p99 at most 1.5 times as long."""
    name = f"of {processes} workers in the last of 10 minutes under {'four readers' if readers else 'an xid'}, against before"
    for figure in await _waits(dsn, record, name, (1.5, 1.5), processes=processes, part=60, under=600, readers=readers):
        assert figure.holds, figure
