"""`backfill worker --processes`: one set of signals, one summary, one exit code, one health for all processes."""

from __future__ import annotations

import json
import os
import signal
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import psycopg
import pytest

from backfill import BackfillClient

from plugins.supervised import START, Supervise
from plugins.waiting import Eventually
from programs import between_signals, free_port, wait_until_gone

TASKS = """
import asyncio, ctypes, logging, os, sys
from backfill import TaskRegistry

tasks = TaskRegistry()

@tasks.task("say")
async def say(word: str) -> None:
    print(f"said {word}")
    print("complained", word, file=sys.stderr)
    logging.getLogger("app").info("noted", extra={"word": word})

@tasks.task("hold")
async def hold() -> None:
    print("holding", flush=True)
    await asyncio.sleep(600)

@tasks.task("short")
async def short() -> None:
    print("holding", flush=True)
    await asyncio.sleep(2)

@tasks.task("clings")
async def clings() -> None:
    print("holding", flush=True)
    while True:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            pass
"""

LIFESPAN = """
from contextlib import asynccontextmanager
from backfill import TaskRegistry

@asynccontextmanager
async def life(client):
    raise OSError("no model here")
    yield

tasks = TaskRegistry(lifespan=life)

@tasks.task("x")
async def x() -> None: ...
"""


def rows(dsn: str, query: str) -> list[tuple[Any, ...]]:
    """What a query gives."""
    with psycopg.connect(dsn) as connection:
        return connection.execute(query).fetchall()


def asked(port: int, path: str) -> tuple[int, dict[str, Any]]:
    """The status and the body of an answer of the health address; 0 where nobody answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)
    except OSError:
        return 0, {}


async def test_one_signal_ends_all_and_one_line_sums_up(dsn: str, supervise: Supervise, eventually: Eventually) -> None:
    """Each line of output names its process; the jobs run, the fleet ends with 0, and its rows are gone."""
    async with BackfillClient(dsn) as client:
        fleet = supervise(TASKS, "--processes", "2")
        await eventually(fleet.pids, timeout=START)
        assert len(set(fleet.pids().values())) == 2
        await client.enqueue_bulk("say", [f"w{number}" for number in range(20)])
        await eventually(lambda: rows(dsn, "select 1 from graphile_worker.jobs"), lambda found: not found)
    fleet.process.send_signal(signal.SIGTERM)
    assert fleet.end() == 0, fleet.output
    lines = fleet.output.splitlines()
    for number in range(20):
        assert sum(line[:3] in ("[1]", "[2]") and line[4:] == f"said w{number}" for line in lines) == 1, fleet.output
        assert sum(line[4:] == f"complained w{number}" for line in lines) == 1
    (last,) = (line for line in lines if "the supervisor stopped" in line)
    assert "2 worker processes, 0 restarts, 0 replaced; attempts: 20 done, 0 failed" in last
    assert last == lines[-1]
    assert rows(dsn, "select 1 from graphile_worker.backfill_workers") == []


async def test_logs_as_json(dsn: str, supervise: Supervise, eventually: Eventually) -> None:
    """Every line of the log is an object; those of workers name their process, and the last has the totals."""
    async with BackfillClient(dsn) as client:
        fleet = supervise(TASKS, "--processes", "2", "--json")
        await eventually(fleet.pids, timeout=START)
        await client.enqueue("say", "hello")
        fleet.wait_for("noted")
    fleet.process.send_signal(signal.SIGINT)
    assert fleet.end() == 0, fleet.output
    lines = [line for line in fleet.output.splitlines() if line not in ("said hello", "complained hello")]
    log = [json.loads(line) for line in lines]
    assert [one["word"] for one in log if one["message"] == "noted" and one["process_number"] in {1, 2}] == ["hello"]
    assert {one["process_number"] for one in log if one["logger"] == "backfill.worker.events"} == {1, 2}
    assert {name: log[-1][name] for name in ("processes", "restarts", "replaced", "done", "left")} == {
        "processes": 2, "restarts": 0, "replaced": 0, "done": 1, "left": 0,
    }  # fmt: skip


async def test_one_health_address_for_all(dsn: str, supervise: Supervise, eventually: Eventually) -> None:
    """It is live from the start, ready once all are, and tells of each process."""
    port = free_port()
    fleet = supervise(TASKS, "--processes", "2", "--health-address", f"127.0.0.1:{port}")
    assert (await eventually(lambda: asked(port, "/live"), lambda found: found[0]))[0] == 200
    status, told = await eventually(lambda: asked(port, "/ready"), lambda found: found[0] == 200, timeout=START)
    assert status == 200
    assert told["ready"]
    assert told["live"]
    assert [one["state"] for one in told["processes"]] == ["running", "running"]
    workers = {name for (name,) in rows(dsn, "select id from graphile_worker.backfill_workers")}
    assert {one["worker_id"] for one in told["processes"]} == workers
    assert {one["pid"] for one in told["processes"]} == {child.pid for child in fleet.children()}
    assert all(one["rss"] > 2**20 for one in told["processes"])
    os.kill(told["processes"][1]["pid"], signal.SIGKILL)
    status, told = await eventually(lambda: asked(port, "/ready"), lambda found: found[0] == 503)
    assert "worker process 2" in told["reasons"][0]
    assert asked(port, "/live")[0] == 200


async def test_a_second_signal_hurries_all(dsn: str, supervise: Supervise, eventually: Eventually) -> None:
    """The jobs go back as they were, and the exit code is that of a worker that was interrupted."""
    async with BackfillClient(dsn) as client:
        await client.enqueue_bulk("hold", [None] * 2)
        fleet = supervise(TASKS, "--processes", "2", "--shutdown-timeout", "10m", "-c", "1")
        fleet.wait_for("holding")
        fleet.wait_for("holding")
    fleet.process.send_signal(signal.SIGINT)
    between_signals()
    fleet.process.send_signal(signal.SIGTERM)
    assert fleet.end() == 130, fleet.output
    assert rows(dsn, "select attempts, locked_by from graphile_worker.jobs") == [(0, None), (0, None)]


async def test_a_handler_that_does_not_end(dsn: str, supervise: Supervise) -> None:
    """The fleet's exit code is that of its worker, and its job goes back last of all."""
    async with BackfillClient(dsn) as client:
        await client.enqueue("clings", max_attempts=1)
        fleet = supervise(TASKS, "--processes", "2", "--shutdown-timeout", "100ms")
        fleet.wait_for("holding")
    fleet.process.send_signal(signal.SIGTERM)
    assert fleet.end() == 6, fleet.output
    assert "ended with exit code 6 at its stop" in fleet.output
    assert "1 given back" in fleet.output.splitlines()[-1]
    assert rows(dsn, "select attempts, locked_by from graphile_worker.jobs") == [(0, None)]


@pytest.mark.leaves_rows
async def test_a_third_signal_kills_all(dsn: str, supervise: Supervise) -> None:
    """Whatever a worker is busy with, it does not outlive its supervisor."""
    async with BackfillClient(dsn) as client:
        await client.enqueue("clings")
        fleet = supervise(TASKS, "--processes", "2", "--shutdown-timeout", "10m")
        fleet.wait_for("holding")
    children = fleet.children()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        assert fleet.process.poll() is None, fleet.output
        fleet.process.send_signal(number)
        between_signals()
    assert fleet.end(20) == 130, fleet.output
    wait_until_gone(children, 5)


async def test_a_ctrl_c_of_the_terminal_reaches_the_supervisor_alone(
    dsn: str, supervise: Supervise, eventually: Eventually
) -> None:
    """A signal to its process group counts as one for each worker, so that the running job may end."""
    async with BackfillClient(dsn) as client:
        await client.enqueue("short", max_attempts=1)
        fleet = supervise(TASKS, "--processes", "2")
        fleet.wait_for("holding")
    fleet.press_ctrl_c()
    assert fleet.end() == 0, fleet.output
    assert rows(dsn, "select 1 from graphile_worker.jobs") == []
    assert rows(dsn, "select 1 from graphile_worker.backfill_dlq") == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGQUIT])
async def test_workers_stop_when_their_supervisor_is_gone(
    dsn: str, supervise: Supervise, eventually: Eventually, number: signal.Signals
) -> None:
    """They let running jobs end, give back what they may, and delete their rows: no job is lost, no process left."""
    async with BackfillClient(dsn) as client:
        await client.enqueue("short", max_attempts=1)
        fleet = supervise(TASKS, "--processes", "2")
        fleet.wait_for("holding")
        await eventually(fleet.pids, timeout=START)
    children = fleet.children()
    assert len(children) == 2
    fleet.process.send_signal(number)
    fleet.process.wait(10)
    wait_until_gone(children, 30)
    assert rows(dsn, "select 1 from graphile_worker.jobs") == []
    assert rows(dsn, "select 1 from graphile_worker.backfill_dlq") == []
    assert rows(dsn, "select 1 from graphile_worker.backfill_workers") == []


@pytest.mark.parametrize(
    ("source", "code", "text"),
    [
        ("import no_such_module", 2, "no_such_module"),
        ("tasks = 3", 2, "app_jobs"),
        (LIFESPAN, 1, "no model here"),
    ],
    ids=["import", "registry", "lifespan"],
)
def test_an_error_at_the_first_start_is_shown_once(supervise: Supervise, source: str, code: int, text: str) -> None:
    """The whole ends with the code that a single worker would have ended with, and nothing is started again."""
    fleet = supervise(source, "--processes", "3")
    assert fleet.end() == code, fleet.output
    assert sum(text in line for line in fleet.output.splitlines()) == 1, fleet.output
    assert "worker process 2" not in fleet.output
    assert "is started again" not in fleet.output


def test_a_database_that_cannot_be_reached_at_the_first_start(supervise: Supervise) -> None:
    """It is told once, with the exit code of a single worker, so that whoever runs the fleet decides what to do."""
    fleet = supervise(TASKS, "--processes", "3", "--dsn", "host=127.0.0.1 port=1 dbname=nowhere")
    assert fleet.end() == 3, fleet.output
    assert sum("[" in line[:1] and "backfill: " in line for line in fleet.output.splitlines()) == 1, fleet.output


def test_an_error_of_the_options_starts_nothing(supervise: Supervise) -> None:
    """The supervisor reads all options itself, those of the workers too."""
    fleet = supervise(TASKS, "--processes", "2", "--dead-after", "1s", "--heartbeat-interval", "9s")
    assert fleet.end() == 2
    assert "--heartbeat-interval" in fleet.output
    assert len(fleet.output.splitlines()) == 1
    fleet = supervise(TASKS, "--processes", "0")
    assert fleet.end() == 2
    assert fleet.output == "backfill: --processes = '0': expected an integer from 1 to 1000; or off\n"


async def test_a_signal_during_the_start_ends_it(supervise: Supervise, tmp_path: Path) -> None:
    """Where a worker is still importing its program, it ends with the fleet, and no other one begins."""
    fleet = supervise(
        "import time\nprint('importing', flush=True)\ntime.sleep(600)\ntasks = None\n", "--processes", "3"
    )
    fleet.wait_for("importing")
    children = fleet.children()
    fleet.process.send_signal(signal.SIGTERM)
    assert fleet.end() == 0, fleet.output
    assert len(children) == 1
    wait_until_gone(children, 5)
