"""The shell behind PgBouncer: what it refuses, and how a worker hears of jobs round it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import psycopg

from plugins.pooler import MakePooler
from programs import running, shell

TASKS = """
from backfill import TaskRegistry

tasks = TaskRegistry()

@tasks.task("say")
async def say(word: str) -> None:
    print(f"said {word}", flush=True)
"""


def test_migrate_names_the_way_out(empty_dsn: str, make_pooler: MakePooler) -> None:
    """It ends with the code of a schema that cannot be worked with, and what it says is one line with the way out."""
    command = shell("migrate", "--dsn", make_pooler(empty_dsn))
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (4, "")
    assert "direct DSN" in done.stderr.splitlines()[-1]
    with psycopg.connect(empty_dsn) as connection:
        assert connection.execute("select count(*) from pg_locks where locktype = 'advisory'").fetchone() == (0,)


def test_a_worker_listens_round_the_pooler(dsn: str, pooled_dsn: str, tmp_path: Path) -> None:
    """With `--listen-dsn` it hears of jobs though it polls but once an hour; with `--no-listen` it does not."""
    (tmp_path / "app_jobs.py").write_text(TASKS)
    for words, poll in ((("--listen-dsn", dsn), "1h"), (("--no-listen",), "50ms")):
        command = shell("worker", "app_jobs:tasks", "--poll-interval", poll, *words)
        with running(command, environment={"DATABASE_URL": pooled_dsn}, folder=tmp_path) as worker:
            worker.wait_for("starts")
            for _ in range(3):
                with psycopg.connect(pooled_dsn) as connection:
                    connection.execute("select graphile_worker.add_job('say', '\"hello\"')")
                worker.wait_for("said hello")
            worker.press_ctrl_c()
            assert worker.end() == 0
            assert "WARNING" not in worker.output, worker.output
            assert worker.output.count("is a pooler") == 1
