"""The extension for Flask: where its clients come from, and what servers that fork make of them."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from flask import Flask

from backfill import ConfigurationError, SchemaMissingError
from backfill.contrib.flask import Backfill

from programs import Program, running


def _count(dsn: str) -> int:
    with psycopg.connect(dsn) as connection:
        [[found]] = connection.execute("select count(*) from graphile_worker.jobs").fetchall()
    return int(found)


@pytest.fixture
def flask() -> Iterator[Flask]:
    """An application, whose client is closed at the end."""
    app = Flask("shop")
    yield app
    if "backfill" in app.extensions:
        app.extensions["backfill"].close()


def test_views_get_the_client_of_their_application(dsn: str, flask: Flask) -> None:
    """One extension serves several applications; each has its own client, which connects at its first use."""
    queue = Backfill()
    other = Flask("other")
    flask.config["BACKFILL_DSN"] = dsn
    other.config["BACKFILL_DSN"] = "host=127.0.0.1 port=1 user=nobody dbname=none"
    queue.init_app(flask)
    queue.init_app(other)

    @flask.post("/jobs")
    def enqueue() -> dict[str, int | None]:
        return {"id": queue.client.enqueue("greet", "ada").id}

    answer = flask.test_client().post("/jobs")
    assert answer.json is not None
    assert int(answer.json["id"]) == _count(dsn) == 1
    with flask.app_context():
        own = queue.client
        assert own is queue.client
    with other.app_context():
        assert queue.client is not own
        assert not queue.client.is_open


def test_the_config_says_where_the_queue_is(
    dsn: str, empty_dsn: str, flask: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BACKFILL_DSN goes before the config's DATABASE_URL, and that before the environment's; a callable may give it."""

    def schema_is_there(app: Flask) -> bool:
        """Whether the client of this application sees the database with the schema."""
        queue = Backfill(app)
        try:
            with app.app_context(), queue.client as client:
                client.enqueue("greet")
        except SchemaMissingError:
            return False
        return True

    monkeypatch.setenv("DATABASE_URL", dsn)
    assert schema_is_there(Flask("by environment"))
    by_url = Flask("by url")
    by_url.config["DATABASE_URL"] = empty_dsn
    assert not schema_is_there(by_url)
    flask.config.update(DATABASE_URL=empty_dsn, BACKFILL_DSN=lambda: dsn, BACKFILL_SCHEMA="graphile_worker")
    assert schema_is_there(flask)
    elsewhere = Flask("elsewhere")
    elsewhere.config.update(BACKFILL_DSN=dsn, BACKFILL_SCHEMA="elsewhere", BACKFILL_MIN_SIZE=0, BACKFILL_MAX_SIZE=2)
    assert not schema_is_there(elsewhere)


def test_what_is_wrong_is_named(dsn: str, flask: Flask) -> None:
    """A value of the config, a second call for one application, and a use without an application."""
    flask.config.update(BACKFILL_DSN=dsn, BACKFILL_MAX_SIZE=0)
    with pytest.raises(ConfigurationError, match=r"'shop'.*BACKFILL_MAX_SIZE.*max_size = 0"):
        Backfill(flask)
    flask.config["BACKFILL_MAX_SIZE"] = 1
    queue = Backfill()
    with flask.app_context(), pytest.raises(ConfigurationError, match="call init_app with it first"):
        _ = queue.client
    queue.init_app(flask)
    with pytest.raises(ConfigurationError, match="has a client already"):
        queue.init_app(flask)
    with pytest.raises(RuntimeError, match="outside of application context"):
        _ = queue.client


WARNINGS = "error,ignore:unclosed <socket.socket:ResourceWarning"
"""All are errors but one: gunicorn's processes leave the socket on which they listen to the end of the process."""
FORKING = """
import os

from flask import Flask

from backfill.contrib.flask import Backfill

queue = Backfill()


def create_app():
    app = Flask(__name__)
    queue.init_app(app)
    with app.app_context():  # the client is open before a server with --preload forks
        queue.client.enqueue("started")

    @app.post("/jobs")
    def enqueue():
        queue.client.enqueue("greet", os.getpid())
        return {"pid": os.getpid()}

    return app
"""


def _port(program: Program) -> int:
    program.wait_for("http://127.0.0.1:")
    return int(program.wait_for(" ").rpartition(":")[2])


@pytest.mark.parametrize("options", [(), ("--preload",), ("--preload", "--threads", "4")], ids=" ".join)
def test_servers_may_fork_before_or_after(dsn: str, tmp_path: Path, options: tuple[str, ...]) -> None:
    """Each process of gunicorn has connections of its own: no job is lost or doubled, and all end in good order."""
    (tmp_path / "served.py").write_text(FORKING, encoding="utf-8")
    command = [sys.executable, "-m", "gunicorn", "served:create_app()", "--bind", "127.0.0.1:0"]
    command += ["--workers", "2", "--no-control-socket", *options]

    def post(port: int) -> int:
        request = urllib.request.Request(f"http://127.0.0.1:{port}/jobs", b"")
        with urllib.request.urlopen(request, timeout=60) as answer:
            return int(json.load(answer)["pid"])

    with running(command, environment={"DATABASE_URL": dsn, "PYTHONWARNINGS": WARNINGS}, folder=tmp_path) as program:
        port = _port(program)
        for _ in range(2):
            program.wait_for("Booting worker with pid")
        served = list[int]()
        with ThreadPoolExecutor(8) as pool:
            until = time.monotonic() + 60
            while len(set(served)) < 2 or len(served) < 60:  # the first process to be there may answer all at first
                assert time.monotonic() < until
                served += pool.map(post, [port] * 20)
        os.kill(program.process.pid, signal.SIGTERM)
        assert program.end() == 0
    for word in ("Traceback", "Warning", "rror"):
        assert word not in program.output
    with psycopg.connect(dsn) as connection:
        found = connection.execute(
            "select task_identifier, count(*) from graphile_worker.jobs group by task_identifier order by 1"
        ).fetchall()
        written = connection.execute(
            """select payload::text::int from graphile_worker._private_jobs job
               join graphile_worker._private_tasks task on task.id = job.task_id where task.identifier = 'greet'"""
        ).fetchall()
    assert found == [("greet", len(served)), ("started", 1 if options else 2)]
    assert Counter(pid for (pid,) in written) == Counter(served)
