"""A real Prometheus: it takes our alerts, and answers each query of our dashboard from what a worker shows."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from backfill import BackfillClient, RetryPolicy, TaskRegistry, WorkerConfig, WorkerRunner
from backfill.metrics.books import Count, Metrics
from backfill.metrics.catalogue import (
    CLEANUP_FAILURES,
    JOBS_RELEASED,
    QUEUES_RELEASED,
    RECONNECTS,
    RECOVERIES,
)
from backfill.worker.upkeep import gauges, unknown

from plugins.waiting import Eventually
from programs import Program, free_port
from scraping import MONITORING, alert_rules, dashboard_queries

SETTINGS = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [{rules}]
scrape_configs:
  - job_name: backfill
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""
_TRIES = 5


class Server:
    """A Prometheus that scrapes one port.

    Args:
        folder: where its data is.
        target: the port.
    """

    def __init__(self, folder: Path, target: int) -> None:
        settings = folder / "prometheus.yml"
        settings.write_text(SETTINGS.format(rules=MONITORING / "alerts.yml", port=target))
        for remaining in reversed(range(_TRIES)):
            self._port = free_port()
            self._program = Program([
                tool("prometheus"), f"--config.file={settings}", f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{self._port}",
            ])  # fmt: skip
            try:
                self._program.wait_for("Server is ready to receive web requests.")
            except AssertionError:
                self._program.kill()
                if not remaining or "in use" not in self._program.output:
                    raise
            else:
                return

    def ask(self, path: str, **parameters: str) -> Any:
        """The data of an answer of its API."""
        url = f"http://127.0.0.1:{self._port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=20) as answer:
            return json.loads(answer.read())["data"]

    def unanswered(self, queries: list[str]) -> list[str]:
        """The queries whose answer has no number."""
        answers = {query: self.ask("query", query=query)["result"] for query in queries}
        return [query for query, series in answers.items() if all(one["value"][1] == "NaN" for one in series)]

    def end(self) -> None:
        """End it."""
        self._program.kill()


def tool(name: str) -> str:
    """The path of one of its programs."""
    found = shutil.which(name)
    if found is None:
        pytest.fail(f"{name} is not installed; the tests of dashboard and alerts need it: apt-get install prometheus")
    return found


def queries() -> list[str]:
    """The dashboard's queries, as Grafana sends them where all jobs and tasks are chosen."""
    variables = {"$__rate_interval": "1m", "$job": ".*", "$task": ".*"}
    found = [target["expr"] for targets in dashboard_queries().values() for target in targets]
    for name, value in variables.items():
        found = [query.replace(name, value) for query in found]
    return list(dict.fromkeys(found))


@pytest.fixture
def books(monkeypatch: pytest.MonkeyPatch) -> Metrics:
    """Books of this test's own, with what happens seldom in them: repairs, and lost connections."""
    own = Metrics()
    monkeypatch.setattr("backfill.metrics.books._metrics", own)
    seldom = (RECONNECTS, RECOVERIES, QUEUES_RELEASED, JOBS_RELEASED)
    own.add([*(Count(one, (), 1) for one in seldom), Count(CLEANUP_FAILURES, ("queue_locks", "timeout"), 1)])
    return own


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that look at the queue often."""
    for service in (gauges, unknown):
        monkeypatch.setattr(service, "FIRST_SECONDS", 0.2)
        monkeypatch.setattr(service, "LOOK_SECONDS", 0.2)


@pytest.fixture
def ended() -> Iterator[list[Server]]:
    """Servers that are ended behind the test."""
    servers = list[Server]()
    yield servers
    for server in servers:
        server.end()


async def test_a_dashboard_with_data(
    books: Metrics, quick: None, dsn: str, tmp_path: Path, eventually: Eventually, ended: list[Server]
) -> None:
    """Each query is answered by a number, no rule fails, and jobs that nobody knows are on their way to an alert."""
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("fine")
    async def fine() -> None: ...

    @tasks.task("late", retry=RetryPolicy(max_attempts=1))
    async def late() -> None:
        raise TimeoutError("no answer")

    config = WorkerConfig(dsn, health_address="127.0.0.1:0")
    async with WorkerRunner(config, tasks) as runner, BackfillClient(dsn) as client:
        assert runner.health_port is not None
        server = await asyncio.to_thread(Server, tmp_path, runner.health_port)
        ended.append(server)
        await client.enqueue("nobody's", {}, run_at=datetime.now(UTC) - timedelta(minutes=10))
        await client.enqueue("fine", {}, delay=timedelta(hours=1))

        async def unanswered() -> list[str]:
            await client.enqueue("fine", {})
            await client.enqueue("late", {}, max_attempts=1)
            dead = (await client.list_dlq_jobs(limit=3)).jobs  # the newest stays, to be counted
            for letter, deal in zip(dead[1:], (client.requeue_dlq_job, client.delete_dlq_job), strict=False):
                await deal(letter.id)
            asking[:] = await asyncio.to_thread(server.unanswered, asking)
            return list(asking)

        asking = queries()
        assert len(asking) > 35
        await eventually(unanswered, lambda left: left == [], timeout=60, moving=True)
        [group] = (await asyncio.to_thread(server.ask, "rules"))["groups"]
    states = {rule["name"]: (rule["health"], rule["state"]) for rule in group["rules"]}
    assert states.keys() == {rule["alert"] for rule in alert_rules()}
    assert {health for health, _ in states.values()} == {"ok"}
    assert states["BackfillUnknownTask"] == states["BackfillOldestDueJob"] == ("ok", "pending")
    assert states["BackfillDeadLetters"] == ("ok", "firing")
    assert (
        states["BackfillNoWorker"] == states["BackfillOldSnapshot"] == states["BackfillLoopLag"] == ("ok", "inactive")
    )


@pytest.mark.parametrize("words", [["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]])
def test_promtool(words: list[str]) -> None:
    """Prometheus's own tool takes the rules, and finds that each alert fires when it should and not before."""
    ran = subprocess.run(
        [tool("promtool"), *words], cwd=MONITORING, capture_output=True, text=True, timeout=60, check=False
    )
    assert (ran.returncode, "SUCCESS" in ran.stdout) == (0, True), ran.stdout + ran.stderr
