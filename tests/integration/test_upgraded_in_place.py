"""A process goes on while its package is upgraded in place.

Whatever it needs later, it has read or imported at its start.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from pathlib import Path

import backfill

PROGRAM = """
import asyncio, os, shutil, sys
from datetime import timedelta
from pathlib import Path

import backfill
from backfill import BackfillClient, Forbidden, JobSpec, NewJob, Queue, Snooze, TaskRegistry, WorkerConfig, WorkerRunner
from backfill.storage.grants import grants_script
from backfill.storage.statements import load
from backfill.storage.schema.steps import migrations

here = Path(backfill.__file__).parent
assert here.is_relative_to(sys.argv[2]), here
names = [path.stem for path in (here / "storage" / "sql").glob("*.sql")]
assert len(names) > 90
for path in here.rglob("*"):
    if path.suffix in {".sql", ".py", ".pyc"} and path.parent != here / "cli":
        path.unlink()

for name in names:
    load(name)
assert migrations()
assert "grant" in grants_script("producer", "someone") and "grant" in grants_script("worker", "someone")

tasks = TaskRegistry()
ran = asyncio.Event()

@tasks.task("keep", keep=timedelta(minutes=1))
def keep(number: int) -> int:
    return number

@tasks.task("once")
async def once(payload: dict[str, int]) -> None:
    raise ValueError("try again")

@tasks.task("never")
async def never() -> None:
    raise Forbidden("no")

@tasks.task("later")
async def later() -> None:
    raise Snooze(timedelta(hours=1))

@tasks.task("last")
async def last() -> None:
    ran.set()

async def main() -> None:
    async with BackfillClient(sys.argv[1], migrate=True) as client:
        config = WorkerConfig(sys.argv[1], stale_lock_cleanup_interval=timedelta(seconds=1))
        async with WorkerRunner(config, tasks) as runner:
            before = {*sys.modules}
            kept = await client.enqueue("keep", 7)
            await client.enqueue("once", {"n": 1}, queue=Queue.serial("lane"), job_key="key")
            await client.enqueue("never")
            await client.enqueue("later")
            await client.enqueue_bulk([NewJob("keep", n) for n in range(20)])
            await client.enqueue_bulk([NewJob("keep", n, JobSpec(job_key=f"key {n}")) for n in range(20)])
            assert await client.result(kept) == 7
            await client.enqueue("last", priority=100)
            await ran.wait()
            await runner.flush_counters()
            [dead] = (await client.list_dlq_jobs()).jobs
            await client.requeue_dlq_job(dead.id)
            packages = {"backfill", "psycopg", "psycopg_pool", "pydantic", "msgspec", "orjson"}
            print(sorted(name for name in {*sys.modules} - before if name.split(".")[0] in packages))

asyncio.run(main())
"""


async def test_all_is_read_when_the_package_is_imported(empty_dsn: str, tmp_path: Path) -> None:
    """A copy of the package whose files are deleted after its import migrates, enqueues and works.

    It imports nothing later.
    """
    here = Path(backfill.__file__).parent
    shutil.copytree(here, tmp_path / "backfill", ignore=shutil.ignore_patterns("__pycache__"))
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        program,
        empty_dsn,
        str(tmp_path),
        env={**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(60):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, err.decode()
    assert out.decode().strip() == "[]"
