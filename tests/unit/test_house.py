"""The shape of the house: which way imports point, how long a file may be, where SQL lives."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import backfill

from places import ROOT, TESTS

PACKAGE = ROOT / "python" / "backfill"
FILES = sorted(path for path in PACKAGE.rglob("*.py"))

# A module may import what stands before its own place, and its own room. `embedded` stands beside storage.
PLACES = [
    {"rebuilt", "shown"},
    {"error_roots"},
    {"handler_errors"},
    {"errors"},
    {"retry", "checks", "importable", "said", "logs", "_native"},
    {"classify", "records", "payloads"},
    {"flags"},
    {"specs"},
    {"chosen"},
    {"jobs"},
    {
        "attempts",
        "batches",
        "cancels",
        "dead_letters",
        "ends",
        "counts",
        "express",
        "job_filter",
        "limits",
        "breakers",
        "progress",
    },
    {"controls", "cron", "hooks", "metrics"},
    {"schedules", "whys"},
    {"storage", "embedded", "embedded_keeper"},
    {"handlers", "middleware"},
    {"task"},
    {"recurring", "task_decorator", "wrapped"},
    {"tasks"},
    {"client"},
    {"sync", "worker"},
    {"operate"},
    {"cli", "contrib", "testing"},
    {"__main__", "__init__"},
]
PLACE = {room: number for number, rooms in enumerate(PLACES) for room in rooms}
# The same within a room, for its modules and folders. What stands in one line does not know what stands beside it.
INNER_PLACES = {
    "storage": [
        {"arrays", "backoff", "counters", "headers", "pasted", "ration", "recovery", "results", "sql_words", "texts"},
        {"rows"},
        {"schedules", "types", "until", "values"},
        {"heartbeat", "statements"},
        {"carried", "grants", "isolation"},
        {"pooler"},
        {"cancelling"},
        {"connection"},
        {"outage"},
        {"pool", "schema", "wire", "workers", "writable"},
        {"accepting", "claim_kinds", "commits", "progress", "serial_floors", "ties", "unprepared"},
        {"claims"},
        {"shares"},
        {"value_claims"},
        {"attempts", "windows"},
        {"settlements"},
        {"__init__"},
    ],
    "client": [
        {"metering", "opening", "prepare", "session"},
        {"carrier", "scheduling", "verbs"},
        {"execute"},
        {"borrowed", "manner", "ways"},
        {"asking", "naming", "starting"},
        {"gathering", "unique"},
        {"connect"},
        {
            "attempts",
            "bulk",
            "counters",
            "dead_letters",
            "ends",
            "enqueue",
            "held_queues",
            "manage",
            "progress",
            "recovery",
            "schedule_table",
            "upkeep",
        },
        {"blocks", "cancel", "cleanup", "control", "presets", "schedules", "why"},
        {"__init__"},
        {"lent"},
    ],
    "worker": [
        {"address", "context", "events", "lifespan", "reachable", "service"},
        {"config"},
        {"services"},
        {"lanes", "liveness", "processes"},
        {"in_child"},
        {"execution"},
        {"handler_pool", "limits"},
        {"control", "pipeline", "scheduling", "upkeep"},
        {"express"},
        {"announcing", "service_lists"},
        {"session"},
        {"stop"},
        {"process"},
        {"runner"},
        {"hosted"},
        {"__init__"},
    ],
}
INNER_PLACE = {
    room: {name: number for number, names in enumerate(places) for name in names}
    for room, places in INNER_PLACES.items()
}
INTEGRATION = TESTS / "integration"
# Tests of the package as a whole, or of a module that stands in no folder. All others stand in the folder of their
# room.
WHOLE = {
    "test_embedded",
    "test_face",
    "test_life",
    "test_pages",
    "test_quickstart",
    "test_said_nowhere",
    "test_upgraded_in_place",
}
# Processes of their own, which are worked with from outside; and where a pause is written once for all.
MAY_SLEEP = {
    "fleet/adding.py",
    "fleet/batching.py",
    "fleet/booked.py",
    "fleet/program.py",
    "fleet/short.py",
    "fleet/told.py",
    "plugins/periods.py",
    "plugins/waiting.py",
}
# A statement that takes long is what these are about.
SLOW_STATEMENTS = {"short.py", "test_main_ends.py", "test_poolers_lost.py", "test_wire.py", "test_worker_faults.py"}
LIMITS = {".py": 400, ".rs": 350}
SQL_LIMITS = {"sql": 80, "migrations": 100, "grants": 100}
_SQL = re.compile(
    r"^\s*(with\s+\w+\s+as\s*(materialized\s*)?\(|select\s+[\w*(:,.' ]+\s+from\s|insert\s+into\s"
    r"|update\s+\S+\s+set\s|delete\s+from\s"
    r"|create\s+(table|index|schema|function|type|view|policy)\s|alter\s+table\s|drop\s+(table|index|schema)"
    r"|select\s+pg_|copy\s+\S+\s*\(|grant\s+\w+\s+on\s|set\s+local\s)",
    re.IGNORECASE,
)


def _room(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def _runtime_imports(tree: ast.AST) -> Iterator[str]:
    """Modules imported when the code runs: those under `if TYPE_CHECKING` are not."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                yield from _runtime_imports(other)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the whole path"
            yield node.module or ""
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        else:
            yield from _runtime_imports(node)


def _texts(tree: ast.AST) -> Iterator[str]:
    """String constants that are no docstrings."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


def test_every_room_has_its_place() -> None:
    """A new room is given a place on purpose."""
    assert {_room(path) for path in FILES} == set(PLACE) - {"_native"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    """What runs never imports upward."""
    room = _room(path)
    for module in _runtime_imports(ast.parse(path.read_text())):
        parts = module.split(".")
        if parts[0] != "backfill":
            continue
        target = parts[1] if len(parts) > 1 else "__init__"
        if target == "__init__" and room == "cli":
            continue  # the shell is a user of the public names
        assert target == room or PLACE[target] < PLACE[room], f"{room} imports {module}"


def _inner(path: Path) -> str:
    """The module or folder of a room that a file is, or is in."""
    return path.relative_to(PACKAGE).parts[1].removesuffix(".py")


@pytest.mark.parametrize("room", INNER_PLACES)
def test_every_module_of_a_room_has_its_place(room: str) -> None:
    """A new module or folder of a room is given a place on purpose."""
    assert {_inner(path) for path in FILES if _room(path) == room} == set(INNER_PLACE[room])


@pytest.mark.parametrize(
    "path", [path for path in FILES if _room(path) in INNER_PLACES], ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_imports_within_a_room_point_one_way(path: Path) -> None:
    """Within storage, client and worker too, what runs never imports upward."""
    room, own = _room(path), _inner(path)
    for module in _runtime_imports(ast.parse(path.read_text())):
        parts = module.split(".")
        if parts[:2] == ["backfill", room]:
            target = parts[2] if len(parts) > 2 else "__init__"
            assert target == own or INNER_PLACE[room][target] < INNER_PLACE[room][own], f"{room}/{own} imports {module}"


def test_integration_tests_stand_in_the_rooms_of_the_package() -> None:
    """Each file of tests/integration stands in a folder that the package has too, but for the few that WHOLE names."""
    files = [path.relative_to(INTEGRATION) for path in INTEGRATION.rglob("*.py")]
    assert {path.stem for path in files if path.parent == Path()} == WHOLE
    assert [str(path) for path in files if not (PACKAGE / path.parent).is_dir()] == []


def _sleeps(tree: ast.AST) -> Iterator[int]:
    """The lines that wait for a while, and for nothing else; a sleep of 0 only lets others have their turn."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (node.args or node.keywords):
            called = ast.unparse(node.func)
            if called in {"asyncio.sleep", "time.sleep", "sleep"} and not ast.unparse(node).endswith("(0)"):
                yield node.lineno
            if called.endswith("Event().wait"):  # nobody else has this event, so nobody sets it
                yield node.lineno


@pytest.mark.parametrize(
    "text", ["asyncio.sleep(1)", "time.sleep(x)", "threading.Event().wait(0.2)", "await asyncio.sleep(0.1)"]
)
def test_a_sleep_is_seen(text: str) -> None:
    """The next test can fail."""
    assert list(_sleeps(ast.parse(text, mode="exec"))) == [1]


def test_tests_do_not_sleep() -> None:
    """They wait for the thing; a period that is what a test is about has a name, from plugins/periods.py."""
    sleeping = {
        f"{path.relative_to(TESTS)}:{line}"
        for path in TESTS.rglob("*.py")
        if path.relative_to(TESTS).as_posix() not in MAY_SLEEP
        for line in _sleeps(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert not sleeping
    slow = {path.name for path in TESTS.rglob("*.py") if "pg_" + "sleep(" in path.read_text(encoding="utf-8")}
    assert slow <= SLOW_STATEMENTS


def test_no_two_tests_have_one_name() -> None:
    """A file of tests is found by its name alone, in whichever room it stands."""
    names = Counter(path.name for path in INTEGRATION.rglob("*.py"))
    assert [name for name, count in names.items() if count > 1] == []


def test_errors_and_retry_know_nothing() -> None:
    """errors.py imports what shows values and what pickles, which import nothing of ours; retry.py only the errors."""
    allowances = {
        "rebuilt": set[str](),
        "shown": set[str](),
        "error_roots": set[str](),
        "handler_errors": {"backfill.error_roots", "backfill.rebuilt", "backfill.shown"},
        "errors": {"backfill.error_roots", "backfill.handler_errors", "backfill.rebuilt", "backfill.shown"},
        "retry": {"backfill.errors"},
    }
    for name, allowed in allowances.items():
        imports = set(_runtime_imports(ast.parse((PACKAGE / f"{name}.py").read_text())))
        assert {module for module in imports if module.startswith("backfill")} <= allowed


@pytest.mark.parametrize(
    "path", [path for path in FILES if _room(path) != "storage"], ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_sql_lives_in_storage(path: Path) -> None:
    """No statement stands in Python outside of storage."""
    for text in _texts(ast.parse(path.read_text())):
        assert not _SQL.match(text), f"SQL in {path.name}: {text[:80]!r}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_say_what_they_are_for(path: Path) -> None:
    """Every module opens with a docstring."""
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_files_are_of_a_readable_length() -> None:
    """No file of code passes its limit, tests included."""
    folders = [PACKAGE, ROOT / "native" / "src", ROOT / "tests", ROOT / "tools", ROOT / "benches"]
    long = {
        str(path.relative_to(ROOT)): lines
        for folder in folders
        for path in folder.rglob("*")
        if path.suffix in LIMITS and (lines := len(path.read_text().splitlines())) > LIMITS[path.suffix]
    }
    assert not long


def test_lines_are_of_a_readable_width() -> None:
    """No line of the package, of tests and of the native code passes 120 columns."""
    wide = [
        f"{path.relative_to(ROOT)}:{number}"
        for folder in (PACKAGE, TESTS, ROOT / "native" / "src")
        for path in folder.rglob("*")
        if path.suffix in ({".py", ".rs", ".sql"} if folder == TESTS else {".py", ".rs"})
        and "node_modules" not in path.parts
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if len(line) > 120
    ]
    assert wide == []


def test_statements_are_short() -> None:
    """One statement a file under 80 lines; a migration under 100."""
    long = {
        f"{folder}/{path.name}": lines
        for folder, limit in SQL_LIMITS.items()
        for path in (PACKAGE / "storage" / folder).glob("*.sql")
        if (lines := len(path.read_text().splitlines())) >= limit
    }
    assert not long


def test_public_names_are_there_and_documented() -> None:
    """Each name of `backfill.__all__` exists, and classes and functions among them have a docstring."""
    for name in backfill.__all__:
        found = getattr(backfill, name)
        if isinstance(found, type) or callable(found):
            assert found.__doc__, name
    assert list(backfill.__all__) == sorted(backfill.__all__, key=lambda name: (not name.isupper(), name))


def test_the_natives_are_documented_at_run_time() -> None:
    """`help()` on the extension tells what the boundary does."""
    from backfill import _native

    names = [name for name in dir(_native) if not name.startswith("_")]
    assert names
    assert all(getattr(_native, name).__doc__ for name in names)
    assert _native.__doc__


def test_the_library_table_of_contents_is_short() -> None:
    """lib.rs says what crosses the boundary, and nothing else; unsafe is allowed in the two files of libpq only."""
    source = ROOT / "native" / "src"
    assert len((source / "lib.rs").read_text().splitlines()) < 80
    for path in source.glob("*.rs"):
        if path.name not in {"libpq.rs", "libpq_connection.rs"}:
            assert not re.search(r"\bunsafe\s*(\{|fn|impl)", path.read_text()), path.name
            assert "allow(unsafe_code)" not in path.read_text(), path.name
