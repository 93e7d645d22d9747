"""Health: what a worker says of itself, and what orchestrators see of it."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import threading
import urllib.error
import urllib.request
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backfill import BackfillClient, TaskRegistry, WorkerConfig, WorkerRunner
from backfill.errors import ConfigurationError
from backfill.worker.address import parse_address
from backfill.worker.liveness.health import Pulse

from plugins.waiting import Eventually
from programs import running, shell
from reading import rows

SOON = timedelta(milliseconds=300)
HOT = (
    "select pg_terminate_backend(pid) from pg_stat_activity "
    "where datname = current_database() and pid <> pg_backend_pid()"
)


class Things:
    """A task that holds the loop, one that waits."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.release = threading.Event()
        self.tasks: TaskRegistry[None] = TaskRegistry()

        @self.tasks.task("block")
        async def block() -> None:
            self.begun.set()
            self.release.wait(20)

        @self.tasks.task("wait")
        async def wait() -> None:
            self.begun.set()
            await asyncio.to_thread(self.release.wait, 20)


def _ask(port: int, path: str) -> tuple[int, dict[str, Any]]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


async def test_a_worker_is_ready_while_its_claims_are_answered(dsn: str, eventually: Eventually) -> None:
    """Not before the start, not at a stop, not while the database is away; live all the time."""
    things = Things()
    async with BackfillClient(dsn) as client:
        runner = WorkerRunner(WorkerConfig(dsn), things.tasks)
        assert (runner.health().ready, runner.health().live) == (False, True)
        assert runner.health().reasons == ("it does not run",)
        async with runner:
            await eventually(lambda: runner.health().ready)
            assert runner.health().reasons == ()
            await client.enqueue("wait")
            await eventually(lambda: runner.health().held, lambda held: held == 1)
            stopping = asyncio.ensure_future(runner._stop())
            await eventually(lambda: runner.health().reasons, lambda told: told == ("it is stopping",))
            assert not runner.health().ready
            things.release.set()
            await stopping
        assert runner.health().reasons == ("it does not run",)
        assert runner.left == 0


async def test_a_loop_that_hangs_is_told_while_it_hangs(dsn: str, eventually: Eventually) -> None:
    """By the thread that answers; whoever asks is not kept waiting."""
    things = Things()
    config = WorkerConfig(dsn, health_address="127.0.0.1:0", blocked_after=None)
    async with BackfillClient(dsn) as client, WorkerRunner(config, things.tasks) as runner:
        port = runner.health_port
        assert port is not None
        assert runner.health(live_within=timedelta(minutes=1)).live
        await eventually(lambda: asyncio.to_thread(_ask, port, "/ready"), lambda answer: answer[0] == 200)
        seen: list[tuple[int, dict[str, Any]]] = []
        told: list[bool] = []

        def watch() -> None:
            things.begun.wait(20)
            while True:
                answer = _ask(port, "/health")
                if answer[1]["lag"] > 1:
                    break
            seen.append(answer)
            told.append(runner.health(live_within=SOON).live)
            things.release.set()

        watcher = threading.Thread(target=watch)
        watcher.start()
        await client.enqueue("block")
        await asyncio.to_thread(watcher.join, 20)
        [(status, body)] = seen
        assert (status, body["worker_id"], body["held"]) == (200, runner.worker_id, 1)
        assert told == [False]
        assert (await asyncio.to_thread(_ask, port, "/live"))[0] == 200
        assert (await asyncio.to_thread(_ask, port, "/nothing"))[0] == 404
    with pytest.raises(urllib.error.URLError):
        await asyncio.to_thread(_ask, port, "/live")


async def test_an_address_that_is_taken_is_refused_at_the_start(dsn: str) -> None:
    """Named, and nothing is left of the worker."""
    config = WorkerConfig(dsn, health_address="127.0.0.1:0")
    async with BackfillClient(dsn), WorkerRunner(config, Things().tasks) as runner:
        second = WorkerRunner(WorkerConfig(dsn, health_address=f"127.0.0.1:{runner.health_port}"), Things().tasks)
        with pytest.raises(
            ConfigurationError, match=r"WorkerConfig\.health_address = '127\.0\.0\.1:\d+': cannot listen"
        ):
            async with second:
                pass
    assert await rows(dsn, "select id from graphile_worker.backfill_workers") == []


async def test_the_file_is_there_while_the_worker_is_ready(
    dsn: str, tmp_path: Path, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its health in it; it goes when the stop begins, and one that cannot be written ends nothing."""
    monkeypatch.setattr("backfill.worker.liveness.probe.FILE_SECONDS", 0.05)
    path, things = tmp_path / "ready", Things()
    async with BackfillClient(dsn) as client:
        runner = WorkerRunner(WorkerConfig(dsn, health_file=path), things.tasks)
        async with runner:
            await eventually(path.exists)
            assert json.loads(path.read_text())["worker_id"] == runner.worker_id
            await client.enqueue("wait")
            await eventually(things.begun.is_set)
            stopping = asyncio.ensure_future(runner._stop())
            await eventually(lambda: not path.exists())
            things.release.set()
            await stopping
        assert not path.exists()
        things.release.clear()
        async with WorkerRunner(WorkerConfig(dsn, health_file=tmp_path / "no" / "file"), things.tasks) as other:
            await eventually(lambda: other.health().ready)


def test_health_in_the_shell(dsn: str, tmp_path: Path) -> None:
    """`--health-file` appears with the worker and goes with it."""
    (tmp_path / "app_jobs.py").write_text(
        "from backfill import TaskRegistry\ntasks = TaskRegistry()\n@tasks.task('t')\nasync def t() -> None: ...\n"
    )
    words = ("worker", "app_jobs:tasks", "--health-file", "ready", "--health-address", "127.0.0.1:0")
    assert asyncio.run(_migrated(dsn))
    with running(shell(*words), environment={"DATABASE_URL": dsn}, folder=tmp_path) as worker:
        worker.wait_for("starts")
        worker.process.send_signal(signal.SIGTERM)
        assert worker.end() == 0
    assert not (tmp_path / "ready").exists()


async def _migrated(dsn: str) -> bool:
    async with BackfillClient(dsn):
        return True


@given(turned=st.floats(0, 200), claimed=st.none() | st.floats(0, 200), stopping=st.booleans())
def test_what_makes_a_worker_live_and_ready(turned: float, claimed: float | None, stopping: bool) -> None:
    """Ready is live, claiming and not stopping; what is not well has a reason."""
    pulse = Pulse()
    now = pulse.turned
    pulse.turned, pulse.stopping = now - turned, stopping
    pulse.claimed = None if claimed is None else now - claimed
    told = pulse.health(
        worker_id="w", held=0, unsettled=0, live_within=timedelta(seconds=100), ready_within=timedelta(seconds=50)
    )
    if turned < 99:
        assert told.live
    if turned > 100:
        assert not told.live
    assert told.ready <= (told.live and not stopping and claimed is not None and claimed <= 50)
    if told.live and not stopping and claimed is not None and claimed < 49:
        assert told.ready
    assert (told.live and told.ready) == (told.reasons == ())


@given(st.text(max_size=20))
def test_any_text_is_an_address_or_is_refused(text: str) -> None:
    """Named, whatever it is."""
    try:
        host, port = parse_address("WorkerConfig.health_address", text)
    except ConfigurationError as error:
        assert str(error).startswith("WorkerConfig.health_address = ")  # noqa: PT017 (either is right)
    else:
        assert 0 <= port <= 65_535
        assert f"{host}:{port}" == text.replace("[", "").replace("]", "") or text.rpartition(":")[2] != str(port)


@pytest.mark.parametrize(
    ("text", "address"),
    [(":8080", ("", 8080)), ("127.0.0.1:0", ("127.0.0.1", 0)), ("[::1]:99", ("::1", 99)), ("here:1", ("here", 1))],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    """Every form that is documented."""
    assert parse_address("x", text) == address


@pytest.mark.parametrize(
    ("address", "hosts"),
    [
        ("[::1]:0", ["::1"]),
        pytest.param(
            ":0",
            ["127.0.0.1", "::1"],
            marks=pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="the system has not both families"),
        ),
        ("127.0.0.1:0", ["127.0.0.1"]),
    ],
)
async def test_each_family_is_served(dsn: str, address: str, hosts: list[str]) -> None:
    """Where none is given, both."""
    async with BackfillClient(dsn), WorkerRunner(WorkerConfig(dsn, health_address=address), Things().tasks) as runner:
        for host in hosts:
            reader, writer = await asyncio.open_connection(host, runner.health_port)
            writer.write(b"HEAD /live HTTP/1.0\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.0 200 OK")
            writer.close()


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("health_address", 8080), ("health_address", b":8080"), ("health_address", ":" + "1" * 5000),
        ("health_address", "\0:80"), ("health_address", ""), ("health_file", ""), ("health_file", "."),
        ("health_file", ".."), ("health_file", "/"), ("health_file", "ready/"), ("health_file", "a\0b"),
        ("health_file", 12), ("health_file", b"ready"), ("health_file", Path()),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_used(field: str, wrong: Any) -> None:
    """Refused at once, and named."""
    with pytest.raises(ConfigurationError, match=rf"^WorkerConfig\.{field} = "):
        WorkerConfig("", **{field: wrong})


async def test_a_name_that_is_too_long_for_a_host_is_refused_at_the_start(dsn: str) -> None:
    """As any other that cannot be had."""
    with pytest.raises(ConfigurationError, match="cannot listen"):
        async with WorkerRunner(WorkerConfig(dsn, health_address="é" * 70 + ":0"), Things().tasks):
            pass
