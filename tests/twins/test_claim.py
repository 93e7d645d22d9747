"""The claim statements: the native form against its Python twin, and against PostgreSQL's own parser."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backfill import ConfigurationError
from backfill._native import claim_statement
from backfill.storage.claims import LaneClaim, LaneFilter, Look
from backfill.storage.connection import connect
from backfill.storage.statements import load
from backfill.storage.wire import Wire

from twins.python_claim import Shape
from twins.python_claim import claim_statement as python_statement

_TEMPLATES = [
    "lock_near_queues",
    "lock_beyond_queues",
    "lock_known_queues",
    "lock_far_queues",
    "claim",
]  # claim_parallel is for lanes without queues
_shapes = st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), max_size=6)
_lines = st.sampled_from(
    ["select", '  from :"schema".x', "-- lane: serial", "   -- lane: parallel ", "-- lane: odd", "", "é"]
)


@given(
    st.lists(_lines, min_size=1, max_size=6),
    st.text(st.characters(codec="utf-8"), max_size=8),
    _shapes,
    st.integers(0, 65_536),
)
def test_any_template_is_filled_alike(lines: list[str], schema: str, lanes: list[Shape], first: int) -> None:
    """Whatever the template, the twins agree, or both refuse."""
    template = "\n".join(lines)
    try:
        expected = python_statement(template, schema, lanes, first)
    except ValueError:
        with pytest.raises(ConfigurationError):
            claim_statement(template, schema, lanes, first)
    else:
        assert claim_statement(template, schema, lanes, first) == expected


@pytest.mark.parametrize("name", _TEMPLATES)
@given(lanes=_shapes.filter(bool))
def test_our_templates_are_filled_alike(name: str, lanes: list[Shape]) -> None:
    """The templates of storage/sql, for any lanes."""
    text = load(name).text
    filled = claim_statement(text, '"s"', lanes, 4)
    assert filled == python_statement(text, '"s"', lanes, 4)
    assert ':"schema"' not in filled
    assert "-- lane:" not in filled


def _filters(lanes: Sequence[Shape]) -> tuple[LaneFilter, ...]:
    return tuple(
        LaneFilter(("a",) if tasks else None, ("^a$",) if queues else None, (-5, 5) if priority else None)
        for tasks, queues, priority in lanes
    )


async def test_every_shape_of_lanes_is_accepted_by_the_server(dsn: str) -> None:
    """Each of the 8 shapes, alone and behind each other one, runs on a real server with as many parameters as given."""
    shapes = [(bool(n & 1), bool(n & 2), bool(n & 4)) for n in range(8)]
    async with await connect(dsn) as connection:
        wire = Wire(connection)
        for lanes in [[one] for one in shapes] + [[one, other] for one in shapes for other in shapes]:
            claim = LaneClaim("graphile_worker", _filters(lanes))
            for look in (Look(5), Look(5, scan_queues=False), Look(5, scan_jobs=False, scan_queues=False)):
                commands = claim.commands(look, worker="nobody", bound=claim.bind({"a": 1}))
                assert len(commands) == claim.count(look)
                assert claim.read(await wire.send(commands, timeout=10), {}).jobs == []
