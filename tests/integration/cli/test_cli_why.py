"""`backfill why`: what it prints of a job that is held back, of one that is not, and of one that is gone."""

from __future__ import annotations

import json
import subprocess

from backfill import BackfillClient, Control, Queue
from preloaded import run_shell

from plugins.roles import NewRole


def ran(dsn: str, *words: str) -> subprocess.CompletedProcess[str]:
    """A command that has ended."""
    return run_shell("why", *words, "--dsn", dsn)


async def paused(dsn: str) -> tuple[int, Control]:
    """A job whose task is paused."""
    async with BackfillClient(dsn) as client:
        job = await client.enqueue("t", queue=Queue.serial("q"))
        return job.id, await client.pause(task="t", by="ann", reason="the provider\nis down")


async def test_a_line_for_each_reason(dsn: str) -> None:
    """Line breaks of a reason do not break it."""
    job, _ = await paused(dsn)
    result = ran(dsn, str(job))
    assert (result.returncode, result.stderr) == (0, "")
    unknown, pause = result.stdout.splitlines()
    assert unknown == "no live worker of this package knows the task t"
    assert pause.startswith("task t is paused by ann since ")
    assert pause.endswith(": the provider is down")


async def test_as_json(dsn: str) -> None:
    """With all that is known."""
    job, control = await paused(dsn)
    shown = json.loads(ran(dsn, str(job), "--json").stdout)
    assert (shown["job_id"], shown["task"], shown["queue"], shown["knowing"]) == (job, "t", "q", 0)
    unknown, pause = shown["reasons"]
    assert unknown["kind"] == "no_worker"
    assert (pause["kind"], pause["control"]["id"], pause["control"]["reason"]) == (
        "paused", control.id, "the provider\nis down",
    )  # fmt: skip
    assert pause["since"] == pause["control"]["said_at"]
    assert (pause["limit"], pause["rate"], pause["holders"], pause["until"]) == (None, None, [], None)


async def test_a_job_that_is_gone(dsn: str) -> None:
    """Is an answer, too."""
    assert ran(dsn, "99").stdout.startswith("job 99 is not in the queue: ")


async def test_bad_usage_and_rights(dsn: str, role: NewRole) -> None:
    """An id out of range exits with 2, and a role without the rights is told how it gets them."""
    result = ran(dsn, str(2**63))
    assert (result.returncode, result.stderr.startswith("backfill: job = ")) == (2, True)
    result = ran(role("producer"), "1")
    assert result.returncode == 1
    assert "no operator's rights" in result.stderr
    assert ran(role("operator"), "1").returncode == 0
