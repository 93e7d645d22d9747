"""PgBouncer in front of a test's database, in each of its modes, and a look at the sessions that it keeps there."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from programs import Program

SIZE = 3
"""Sessions of the server for all clients together: fewer than those have connections, so that they change hands."""
_NOBODY = 65534
_TRIES = 5
_SETTINGS = """
[databases]
* = {server}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
default_pool_size = {size}
max_client_conn = 200
server_round_robin = 1
log_connections = 0
log_disconnections = 0
"""
MakePooler = Callable[..., str]


def pooler_program() -> str:
    """The path of PgBouncer; as a daemon it is not on everybody's PATH."""
    found = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin{os.pathsep}/sbin")
    if found is None:
        pytest.fail("pgbouncer is not installed; the tests of poolers need it: apt-get install pgbouncer")
    return found


def pooler_user(host: str) -> int | None:
    """Whom it runs as, since it refuses root: the owner of the server's socket, who may use it, or nobody."""
    if os.geteuid():
        return None
    owner = Path(host).stat().st_uid if host.startswith("/") else 0
    return owner or _NOBODY


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def _start(dsn: str, folder: Path, *, mode: str, size: int) -> tuple[Program, str]:
    """Start one; the DSN that leads through it. The port may be taken in the last moment, then another is tried."""
    given = conninfo_to_dict(dsn)
    host = str(given["host"])
    target = {"host": host, "port": given.get("port", 5432), "user": given["user"], "password": given.get("password")}
    quoted = {key: "'{}'".format(str(value).replace("'", "''")) for key, value in target.items() if value is not None}
    user = pooler_user(host)
    for remaining in reversed(range(_TRIES)):
        port = _free_port()
        settings = folder / f"pgbouncer-{port}.ini"
        server = " ".join(f"{key}={value}" for key, value in quoted.items())
        settings.write_text(_SETTINGS.format(server=server, port=port, mode=mode, size=size))
        if user is not None:
            os.chown(folder, user, -1)
            os.chown(settings, user, -1)
        program = Program([pooler_program(), str(settings)], user=user)
        try:
            program.wait_for("process up")
        except AssertionError:
            program.kill()
            if not remaining or "in use" not in program.output:
                raise
        else:
            return program, make_conninfo(dsn, host="127.0.0.1", port=port, password=None)
    raise AssertionError("not reached")


@pytest.fixture
def make_pooler(request: pytest.FixtureRequest) -> Iterator[MakePooler]:
    """Starts PgBouncer in front of a DSN's server.

    `make_pooler(dsn, mode="transaction", size=3)` gives the DSN through it.
    """
    if "dsn" in request.fixturenames:
        request.getfixturevalue("dsn")  # dropped behind the poolers' end
    folder = Path(tempfile.mkdtemp(prefix="bf-pooler-", dir="/tmp"))
    programs: list[Program] = []

    def make(dsn: str, *, mode: str = "transaction", size: int = SIZE) -> str:
        program, through = _start(dsn, folder, mode=mode, size=size)
        programs.append(program)
        return through

    yield make
    for program in programs:
        program.kill()
    shutil.rmtree(folder)


@pytest.fixture
def pooled_dsn(dsn: str, make_pooler: MakePooler) -> str:
    """A DSN of the test's database through PgBouncer in transaction mode, with three sessions on the server."""
    return make_pooler(dsn)


@asynccontextmanager
async def every_session(pooled: str, size: int = SIZE) -> AsyncIterator[list[psycopg.AsyncConnection[Any]]]:
    """Connections through a pooler that hold all of its sessions between them, each in a transaction."""
    async with AsyncExitStack() as stack:
        held = []
        for _ in range(size):
            connection = await psycopg.AsyncConnection.connect(pooled, prepare_threshold=None)
            held.append(await stack.enter_async_context(connection))
            await connection.execute("select")
        yield held


async def assert_sessions_are_clean(pooled: str, size: int = SIZE) -> None:
    """No session of a pooler has anything prepared, set, locked or listened to."""
    async with every_session(pooled, size) as sessions:
        pids = set()
        for session in sessions:
            cursor = await session.execute(
                """select
                     pg_backend_pid(),
                     (select count(*) from pg_prepared_statements),
                     (select count(*) from pg_listening_channels()),
                     (select count(*) from pg_locks where pid = pg_backend_pid() and locktype = 'advisory'),
                     (select array_agg(name || '=' || setting) from pg_settings
                      where source = 'session' and name not in ('application_name', 'client_encoding')
                        and setting <> reset_val)"""
            )
            row = await cursor.fetchone()
            assert row is not None
            pids.add(row[0])
            assert row[1:] == (0, 0, 0, None), row
        assert len(pids) == size
