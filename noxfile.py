"""What is run on the project: `nox -s ci` is everything that a change must pass, the others are its parts.

The sessions run in the environment that `python3 tools/dev.py setup` makes, where backfill's own wheel is installed; so
tests meet what users install, and never the source tree.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import nox

sys.path.insert(0, str(Path(__file__).parent / "tools"))
from own_server import own_server

nox.options.sessions = ["ci"]
nox.options.default_venv_backend = "none"

HERE = Path(__file__).parent
FAST = ["tests/unit", "tests/properties"]
DATABASE = ["tests/twins", "tests/integration", "tests/interop"]
ALL = [*FAST, *DATABASE, "tests/faults"]
ONCE = (
    "test_bulk_unique",
    "test_cli_",
    "test_fastapi",
    "test_flask",
    "test_fleet",
    "test_gathering_chaos",
    "test_gone",
    "test_health",
    "test_heartbeat",
    "test_hosted",
    "test_key_of",
    "test_lane_concurrency",
    "test_limits_",
    "test_lost",
    "test_node",
    "test_notices",
    "test_paused_queues_kills",
    "test_pauses_fleet",
    "test_poolers",
    "test_prometheus",
    "test_recovery",
    "test_resumed_kills",
    "test_series",
    "test_share_chaos",
    "test_traces_",
    "test_transaction_kills",
    "test_unique",
    "test_value_limits",
    "test_watchdog",
    "test_web_examples",
    "test_worker_beat",
    "test_worker_locks",
)
"""How the names of those files begin to which the kind of server is the same, in whichever room they stand."""
ROOMS = [
    f"tests/integration/worker/{room}"
    for room in ("control", "execution", "express", "lanes", "pipeline", "scheduling")
]
"""Rooms of the worker to which the kind of server is the same: their statements are tried on each kind elsewhere."""
OWN = [
    "tests/integration/cli/test_demo.py",
    "tests/integration/test_embedded.py",
    "tests/integration/test_quickstart.py",
    "tests/integration/client/ends/test_results_restart.py",
    "tests/integration/worker/liveness/test_away.py",
    "tests/integration/storage/test_outages.py",
    "tests/integration/storage/test_outages_network.py",
    "tests/integration/storage/test_failover.py",
    "tests/integration/worker/test_stop_away.py",
    "tests/integration/worker/test_kills.py",
    "tests/integration/worker/liveness/test_gil.py",
    "tests/integration/worker/test_reconnects.py",
    "tests/integration/test_life.py",
    "tests/faults",
    "tests/integration/worker/execution",
    "tests/integration/worker/express",
]
"""Tests that start servers themselves, or that take long, and two rooms of the worker: once is enough."""
SHARED = [
    str(path.relative_to(HERE))
    for room in DATABASE
    for name in ONCE
    for path in sorted(HERE.glob(f"{room}/**/{name}*.py"))
    if str(path.parent.relative_to(HERE)) not in ROOMS
]
"""Tests to which the kind of server is the same: they run once, on the embedded one."""
MACHINES = [
    *(room for room in ROOMS if room not in OWN),
    "tests/integration/storage/schema/test_migrate.py",
    "tests/integration/storage/schema/test_operators.py",
    "tests/integration/storage/schema/test_contract_races.py",
    "tests/integration/storage/schema/test_contract_keys.py",
    "tests/integration/storage/schema/test_odd_settings.py",
    "tests/integration/storage/test_carried.py",
    "tests/integration/storage/test_isolation.py",
    "tests/integration/client/bulk",
    "tests/integration/client/dead_letters",
    "tests/integration/client/ends",
    "tests/integration/contrib",
]
"""Tests to which the kind of server is the same: they run on the machine's own server, so that clients meet it too."""
EMBEDDED = [
    "tests/integration/storage/schema/test_contract_add.py",
    "tests/integration/storage/schema/test_contract_manage.py",
    "tests/integration/storage/schema/test_contract_twin.py",
    "tests/integration/storage/schema/test_migrate_foreign.py",
    "tests/integration/storage/schema/test_schema_dump.py",
    "tests/integration/storage/schema/test_grants.py",
    "tests/integration/storage/test_plans_dead_rows.py",
    "tests/integration/storage/test_shares.py",
    "tests/twins",
    *(str(path.relative_to(HERE)) for path in sorted((HERE / "tests/integration/client").glob("test_*.py"))),
    "tests/integration/client/gathering",
    "tests/integration/storage/schema/test_migrate_script.py",
    "tests/integration/storage/schema/test_migrate_together.py",
    "tests/integration/sync",
    "tests/integration/worker/limits",
    "tests/integration/worker/liveness",
    "tests/integration/worker/processes",
    "tests/integration/worker/upkeep",
    "tests/integration/test_pages.py",
    "tests/integration/test_said_nowhere.py",
    "tests/integration/worker/test_books.py",
    "tests/integration/worker/test_logs.py",
    "tests/integration/worker/test_main_ends.py",
    "tests/integration/worker/test_metrics.py",
    "tests/integration/worker/test_metrics_troubles.py",
    "tests/integration/worker/test_services.py",
    "tests/integration/worker/test_stops.py",
    "tests/integration/worker/test_worker_faults.py",
    "tests/integration/worker/test_worker_lifecycle.py",
    "tests/integration/worker/test_worker_runs.py",
]
"""More tests to which the kind of server is the same: they run with those of the embedded one."""
OTHERS = [f"--ignore={path}" for path in (*OWN, *SHARED) if path.startswith("tests/integration/") or path in SHARED]
NOT_EMBEDDED = [f"--ignore={path}" for path in MACHINES]
NOT_MACHINES = [f"--ignore={path}" for path in EMBEDDED]
SHUFFLED = ("--random-order", "--random-order-bucket=module")
"""The files in a random order, and the tests of each file too; `--random-order-seed=N` repeats an earlier run's order."""
GATES = "benches/gates"
FAULTS = [
    f"benches/test_bench_faults.py::{name}"
    for name in (
        "test_rate_while_backends_are_ended[10]",
        "test_rate_beside_idle_connections",
    )
]
"""What faults may cost: as ratios, so that they need a quiet machine."""
MEMORY = 8 << 30
"""How many bytes must be free in memory for the temporary files of all tests."""
BRIEF = ("wal_level=minimal", "max_wal_senders=0", "full_page_writes=off")
"""What spares the disk: the tests make and drop thousands of databases."""
COUNTING = ("shared_preload_libraries=pg_stat_statements", "autovacuum=off")
"""What the gates' server needs: the extension counts statements, and autovacuum's commits would count too."""


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff and rustfmt."""
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("cargo", "fmt", "--check", external=True)


@nox.session
def types(session: nox.Session) -> None:
    """Mypy (strict), pyright, and the stub against the module."""
    session.run("mypy")
    # By itself it looks for the environment in VIRTUAL_ENV and on PATH, which hold another one, or none, if not activated.
    session.run("pyright", "--pythonpath", sys.executable)
    session.run("python", "-m", "mypy.stubtest", "backfill._native", "--ignore-disjoint-bases")


@nox.session
def rust(session: nox.Session) -> None:
    """Clippy and the native crate's own tests."""
    session.run("cargo", "clippy", "--all-targets", "--", "--deny", "warnings", external=True)
    session.run("cargo", "test", "--quiet", external=True)


@nox.session
def unit(session: nox.Session) -> None:
    """Tests without a server."""
    session.run("pytest", *FAST, *session.posargs)


@nox.session
def embedded(session: nox.Session) -> None:
    """All tests on PostgreSQL from the embedded wheel."""
    session.run("pytest", "-m", "not long", *(session.posargs or ALL), env=_without_server())


@nox.session
def shuffled(session: nox.Session) -> None:
    """All tests on PostgreSQL from the embedded wheel, in a random order; it prints the seed."""
    session.run("pytest", "-m", "not long", *SHUFFLED, *session.posargs, env=_without_server())


@nox.session
def own(session: nox.Session) -> None:
    """The tests without a server, those that start servers of their own, faults, and rooms of the worker."""
    session.run("pytest", "-m", "not long", *(session.posargs or FAST + OWN), env=_without_server())


@nox.session
def once(session: nox.Session) -> None:
    """The tests to which the kind of server is the same, most of which start fleets."""
    session.run("pytest", "-m", "not long", *(session.posargs or SHARED), env=_without_server())


@nox.session
def server(session: nox.Session) -> None:
    """The tests that talk to a database, on this machine's own server."""
    with own_server(*BRIEF) as dsn:
        chosen = session.posargs or DATABASE + OTHERS + NOT_MACHINES
        session.run("pytest", "-m", "not long", *chosen, env={"DATABASE_URL": dsn})


@nox.session
def gates(session: nox.Session) -> None:
    """What must not get slower: instructions of the native cores, statements and commits a job, and two ratios."""
    session.run("python", "tools/gate_native.py")
    with own_server(*COUNTING) as dsn:
        session.run("pytest", GATES, *session.posargs, env={"DATABASE_URL": dsn})
    with own_server("max_connections=400") as dsn:
        session.run("pytest", "--timeout", "600", *FAULTS, *session.posargs, env={"DATABASE_URL": dsn})


@nox.session
def ci(session: nox.Session) -> None:
    """All that a change must pass."""
    for part in (lint, types, rust, _side_by_side, gates):
        session.log("== %s", part.__name__.lstrip("_"))
        part(session)


def _side_by_side(session: nox.Session) -> None:
    """The tests on each kind of server, and those with their own, beside each other: they wait more than they work."""
    with ExitStack() as stack:
        memory = stack.enter_context(_in_memory())
        beside = [(name, *stack.enter_context(_started(name, memory))) for name in ("server", "own", "once")]
        try:
            chosen = (*DATABASE, *OTHERS, *NOT_EMBEDDED)
            session.run("pytest", "-m", "not long", *chosen, env={**_without_server(), **memory})
        finally:
            failed = [name for name, process, _ in beside if process.wait()]
            for name, _, output in beside:
                output.seek(0)
                session.log("== %s\n%s", name, output.read())
    if failed:
        session.error(f"the tests failed: {', '.join(failed)}")


@contextmanager
def _in_memory() -> Iterator[dict[str, str]]:
    """Variables by which temporary files are in memory, where there is enough of it.

    A test has its own database, of hundreds of files: on a disk, making and removing them takes half of the time.
    """
    memory = Path("/dev/shm")  # noqa: S108 - that is its place on Linux
    if not memory.is_dir() or shutil.disk_usage(memory).free < MEMORY or os.statvfs(memory).f_flag & os.ST_NOEXEC:
        yield {}
        return
    with tempfile.TemporaryDirectory(prefix="bf-", dir=memory) as folder:
        os.chmod(folder, 0o1777)  # noqa: S103 - servers run as users of their own
        yield {"TMPDIR": folder}


@contextmanager
def _started(name: str, variables: dict[str, str]) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    """A session in a process of its own, with these variables too, and where it writes to."""
    command = (sys.executable, "-m", "nox", "--noxfile", __file__, "--session", name)
    with (
        tempfile.TemporaryFile("w+") as output,
        subprocess.Popen(  # noqa: S603 - ourselves
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **variables},
        ) as process,
    ):
        yield process, output


@nox.session
def docs(session: nox.Session) -> None:
    """The reference of the Python interface, from the docstrings, as HTML in build/reference."""
    session.run("python", "tools/reference.py", *session.posargs)


@nox.session
def schema(session: nox.Session) -> None:
    """Writes the schema that migrations make to tests/contract/schema.txt, which a test compares."""
    session.run("python", "-m", "contract.dump", env={**_without_server(), "PYTHONPATH": "tests"})


@nox.session
def bench(session: nox.Session) -> None:
    """Benchmarks, as ratios within one run."""
    # The gates want a server of their own, and are no benchmarks.
    session.run("pytest", "benches", f"--ignore={GATES}", "--benchmark-only", "-m", "not long", *session.posargs)


@nox.session
def long(session: nox.Session) -> None:
    """The full forms of what has a short one, and many more examples of each property."""
    environment = {**_without_server(), "BACKFILL_HYPOTHESIS": "long"}
    session.run("pytest", "--timeout", "7200", *(session.posargs or ALL), env=environment)
    if not session.posargs:
        benches = ("benches", f"--ignore={GATES}", "-m", "long", "--timeout", "7200")
        session.run("pytest", *benches, env=environment)


def _without_server() -> dict[str, str | None]:
    return {"DATABASE_URL": None} if "DATABASE_URL" in os.environ else {}
