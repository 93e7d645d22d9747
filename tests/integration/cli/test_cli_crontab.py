"""`--crontab`: each process of a fleet declares the files, and `backfill dev` follows their changes."""

from __future__ import annotations

import signal
from pathlib import Path

from plugins.developing import Developing, until_reloaded, until_works
from plugins.supervised import START, Supervise
from plugins.waiting import Eventually
from programs import running, shell
from reading import rows

TASKS = """
from backfill import TaskRegistry

tasks = TaskRegistry(crontab="@daily code")

@tasks.task("say")
async def say(word: str) -> None: ...
"""
DECLARED = """
select crontab.items
from graphile_worker.backfill_workers worker
left join graphile_worker.backfill_crontabs crontab on crontab.digest = worker.crontab
"""


async def test_each_process_of_a_fleet_declares_the_files(
    dsn: str, supervise: Supervise, tmp_path: Path, eventually: Eventually
) -> None:
    """Beside what the code declares."""
    (tmp_path / "night").write_text("0 4 * * * say {word: 'x'}\n")
    (tmp_path / "day").write_text("0 16 * * * say ?id=day\n")
    fleet = supervise(TASKS, "--processes", "2", "--crontab", "night", "--crontab", "day")
    await eventually(fleet.pids, timeout=START)
    items = {"code": "0 0 * * * code", "say": '0 4 * * * say {"word":"x"}', "day": "0 16 * * * say ?id=day"}
    assert await rows(dsn, DECLARED) == [(items,), (items,)]
    fleet.process.send_signal(signal.SIGTERM)
    assert fleet.end() == 0, fleet.output


def test_a_wrong_file_is_refused_before_any_process_starts(dsn: str, tmp_path: Path) -> None:
    """Once, with its place, whether there is a supervisor or not."""
    (tmp_path / "app_jobs.py").write_text(TASKS)
    (tmp_path / "night").write_text("# the night\n0 24 * * * say\n")
    for words in (("--processes", "2"), ()):
        command = shell("worker", "app_jobs:tasks", "--crontab", "night", *words)
        with running(command, environment={"DATABASE_URL": dsn}, folder=tmp_path) as program:
            assert program.end() == 2, program.output
        told = [line for line in program.output.splitlines() if "night" in line]
        assert told == [
            "backfill: --crontab night: line 2, column 3: '24': expected a number from 0 to 23 for the hour"
        ]


async def test_dev_follows_a_crontab(dsn: str, developing: Developing, eventually: Eventually) -> None:
    """A change starts a new worker, which declares the new text; a wrong one is shown and waited out."""
    developing.write("@daily say\n", "crontab")
    program = developing.start("--crontab", "crontab", variables={"DATABASE_URL": dsn})
    until_works(program)
    assert await rows(dsn, DECLARED) == [({"say": "0 0 * * * say"},)]
    developing.write("@sometimes say\n", "crontab")
    program.wait_for("expected @yearly")
    developing.write("@hourly say\n", "crontab")
    until_reloaded(program)
    found = await eventually(lambda: rows(dsn, DECLARED))
    assert found == [({"say": "0 * * * * say"},)]
    program.press_ctrl_c()
    assert program.end() == 0
