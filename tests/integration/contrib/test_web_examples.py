"""The web applications of examples/ run as their readers would run them: served, asked over HTTP, ended by SIGTERM."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import psycopg

from places import ROOT
from plugins.periods import between_looks
from programs import Program, running

EXAMPLES = ROOT / "examples"
PATIENCE = 60.0
WARNINGS = "error,ignore:unclosed <socket.socket:ResourceWarning"
"""All are errors but one: gunicorn's processes leave the socket on which they listen to the end of the process."""


def ask(url: str, body: Any = None) -> tuple[int, Any]:
    """The status and the JSON of an answer; with a body it is a POST."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, None


def see(url: str, right: Any) -> None:
    """Ask until the answer is right."""
    until = time.monotonic() + PATIENCE
    while (found := ask(url)) != (200, right):
        assert time.monotonic() < until, found
        between_looks()


@contextlib.contextmanager
def served(dsn: str, *command: str) -> Iterator[Program]:
    """A server that is started as a module, in the folder of examples."""
    environment = {"DATABASE_URL": dsn, "PYTHONWARNINGS": WARNINGS}
    with running([sys.executable, "-m", *command], environment=environment, folder=EXAMPLES) as program:
        yield program


def port_in(program: Program, before: str) -> int:
    """The port that the server was given by the system, and tells."""
    program.wait_for(before)
    told = program.wait_for("\n")
    digits = told[told.rindex(before) + len(before) :]
    return int("".join(character for character in digits.split()[0] if character.isdigit()))


def end(program: Program) -> int:
    """Ask the server's main process to end, as supervisors do."""
    os.kill(program.process.pid, signal.SIGTERM)
    return program.end()


def jobs_left(dsn: str) -> int:
    """How many jobs there are."""
    with psycopg.connect(dsn) as connection:
        [[count]] = connection.execute("select count(*) from graphile_worker.jobs").fetchall()
    return int(count)


def workers_left(dsn: str) -> int:
    """How many workers have not ended in good order."""
    with psycopg.connect(dsn) as connection:
        [[count]] = connection.execute("select count(*) from graphile_worker.backfill_workers").fetchall()
    return int(count)


def test_fastapi(dsn: str) -> None:
    """Uvicorn serves it; the worker in its process sends the receipt; SIGTERM ends both in good order."""
    with served(dsn, "uvicorn", "fastapi_app.web:app", "--port", "0") as program:
        at = f"http://127.0.0.1:{port_in(program, 'http://127.0.0.1:')}"
        assert ask(f"{at}/worker/live")[0] == 200
        status, order = ask(f"{at}/orders", {"recipient": "ada@example.com"})
        assert (status, order) == (201, {"id": 1, "recipient": "ada@example.com"})
        see(f"{at}/orders/1", {"receipt_sent": True})
        assert "receipt of order 1 sent to ada@example.com" in program.wait_for("ada@example.com")
        assert ask(f"{at}/orders/2")[0] == 404
        assert workers_left(dsn) == 1
        # uvicorn ends in good order, and then by the signal that it got, as its parent expects.
        assert end(program) in (0, -signal.SIGTERM)
    assert "Application shutdown complete." in program.output
    assert "ERROR" not in program.output
    assert (jobs_left(dsn), workers_left(dsn)) == (0, 0)


def test_fastapi_without_the_schema(empty_dsn: str) -> None:
    """The application does not start, says what to do, and ends with an error."""
    with served(empty_dsn, "uvicorn", "fastapi_app.web:app", "--port", "0") as program:
        assert program.end() not in (0, -signal.SIGTERM)
    assert "backfill migrate" in program.output


def _behind_gunicorn(dsn: str, application: str, tasks: str) -> None:
    """Serve an application by two processes, and run its jobs by a worker; an order's receipt is sent, and all end."""
    gunicorn = ("gunicorn", application, "--bind", "127.0.0.1:0", "--workers", "2", "--preload", "--no-control-socket")
    with served(dsn, "backfill", "worker", tasks) as worker, served(dsn, *gunicorn) as program:
        at = f"http://127.0.0.1:{port_in(program, 'http://127.0.0.1:')}"
        for number in (1, 2, 3):
            order = {"id": number, "recipient": "ada@example.com"}
            assert ask(f"{at}/orders", {"recipient": "ada@example.com"}) == (201, order)
            see(f"{at}/orders/{number}", {"receipt_sent": True})
        assert ask(f"{at}/orders/4")[0] == 404
        worker.wait_for("receipt of order 3 sent to ada@example.com")
        assert [end(program), end(worker)] == [0, 0]
    assert "Traceback" not in program.output + worker.output
    assert (jobs_left(dsn), workers_left(dsn)) == (0, 0)


def test_flask(dsn: str) -> None:
    """Two processes of gunicorn, which have forked after the application was made."""
    with served(dsn, "flask", "--app", "flask_app.web", "make-tables") as program:
        assert program.end() == 0
    _behind_gunicorn(dsn, "flask_app.web:create_app()", "flask_app.jobs:tasks")


def test_django(dsn: str) -> None:
    """The same with Django, whose own transaction has the order and its job."""
    with served(dsn, "django", "migrate", "--settings", "django_app.settings") as program:
        assert program.end() == 0
    _behind_gunicorn(dsn, "django_app.wsgi", "django_app.worker:tasks")
