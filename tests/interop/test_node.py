"""Node's graphile-worker and backfill on one schema: each leaves alone what the other has made."""

from __future__ import annotations

from pathlib import Path

from backfill import BackfillClient
from contract.snapshot import snapshot

from plugins.node import Node
from reading import rows

SCHEMA = "graphile_worker"
LEDGER = "select id, ts, breaking from graphile_worker.migrations order by id"


async def test_node_accepts_our_schema(node_modules: Path, dsn: str) -> None:
    """Node's own migrations find nothing to do in a schema of ours, and change nothing."""
    before = snapshot(dsn, SCHEMA), await rows(dsn, LEDGER)
    await Node(node_modules, dsn).run("migrate.js")
    assert (snapshot(dsn, SCHEMA), await rows(dsn, LEDGER)) == before


async def test_we_leave_nodes_schema_alone(node_modules: Path, empty_dsn: str) -> None:
    """Where Node came first, migrating adds objects named backfill_*, and touches nothing but autovacuum's settings."""
    node = Node(node_modules, empty_dsn)
    await node.run("migrate.js")
    before, ledger = snapshot(empty_dsn, SCHEMA, ledger=False), await rows(empty_dsn, LEDGER)
    async with BackfillClient(empty_dsn, migrate=True):
        pass
    after = snapshot(empty_dsn, SCHEMA, ledger=False)
    for part, objects in before.items():
        if part not in ("indexes", "constraints"):  # these are told without their names; two more parts have them
            added = after[part].keys() - objects.keys()
            assert [name for name in added if "backfill_" not in name] == [], part
        for name, definition in objects.items():
            found = after[part][name]
            assert (_without_vacuum(found) if part == "storage" else found) == definition, f"{part}: {name}"
    assert "backfill_workers" in after["storage"], "ours are there"
    await node.run("migrate.js")
    assert snapshot(empty_dsn, SCHEMA, ledger=False) == after, "Node still accepts it, and leaves ours alone"
    assert await rows(empty_dsn, LEDGER) == ledger


def _without_vacuum(options: str) -> str:
    """A table's storage parameters without autovacuum's."""
    return ", ".join(option for option in options.split(", ") if not option.startswith("autovacuum_"))
