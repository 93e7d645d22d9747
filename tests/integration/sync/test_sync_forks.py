"""A client that was opened before the process forked: each child writes all that it says, on connections of its own."""

from __future__ import annotations

import multiprocessing
import os
import select
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import psycopg_pool
import pytest

import sync_children
from backfill import BackfillError, NewJob
from backfill.sync import Client
from sync_children import add

# What Python 3.12 warns of is what is tried here.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

CHILDREN = 8
EACH = 1_000
SECONDS = 60


def fork(deed: Callable[[], object]) -> int:
    """Run a deed in a forked child, which exits as a server's worker would; the child's number."""
    child = os.fork()
    if child:
        return child
    signal.alarm(SECONDS)  # a child that hangs is ended, and its exit code fails the test
    try:
        deed()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def assert_ended_well(children: list[int]) -> None:
    """Every child ended with exit code 0."""
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * len(children)


def counted(dsn: str) -> tuple[int, int]:
    """How many jobs there are, and how many different payloads they have."""
    with psycopg.connect(dsn) as connection:
        [found] = connection.execute(
            "select count(*), count(distinct payload::text) from graphile_worker._private_jobs"
        ).fetchall()
        return int(found[0]), int(found[1])


def sessions(connection: psycopg.Connection) -> set[int]:
    """The server's processes of connections to the database, but for the asking one."""
    found = connection.execute(
        """select pid from pg_stat_activity
           where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'"""
    ).fetchall()
    return {pid for (pid,) in found}


def test_children_of_an_open_client(dsn: str) -> None:
    """Eight children add a thousand jobs each, and the parent goes on: none is lost, none is twice."""
    with Client(dsn, min_size=2) as client, psycopg.connect(dsn, autocommit=True) as looking:
        add(client, -1, 10)
        before = sessions(looking)
        children = [fork(partial(add, client, number)) for number in range(CHILDREN)]
        add(client, -2, 100)
        assert_ended_well(children)
        add(client, -3, 10)
        assert before <= sessions(looking), "the parent's connections are the same as before"
    expected = CHILDREN * EACH + 120
    assert counted(dsn) == (expected, expected)


PROGRAM = """
import gc, os, sys
from backfill.sync import Client

client = Client(sys.argv[1], min_size=2)
client.open()
with client.pool.connection() as connection:
    [before] = connection.execute("select pg_backend_pid()").fetchone()
client.enqueue("t", {"child": 0})
for number in (1, 2, 3):
    child = os.fork()
    if not child:
        if number == 1:
            del client
            gc.collect()
        elif number == 2:
            client.enqueue("t", {"child": number})
            client.close()
            with client:
                client.enqueue_bulk("t", ({"child": number, "job": job} for job in range(2_100)))
        else:
            client.enqueue("t", {"child": number})
        sys.exit(0)  # it runs its exit handlers, with the client open in the third
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert [client.enqueue("t", {"parent": number}).id for number in range(3)]
with client.pool.connection() as connection:
    pids = {pid for pid, in connection.execute("select pid from pg_stat_activity").fetchall()}
assert before in pids
client.close()
"""


def test_children_that_exit_as_programs_do(dsn: str, tmp_path: Path) -> None:
    """A child may collect the client, close it, or exit with it open: the parent's sockets notice nothing."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = [sys.executable, "-X", "dev", "-W", "error", "-W", "ignore:This process", str(program), dsn]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert counted(dsn) == (2_106, 2_106)


def test_children_of_children(dsn: str) -> None:
    """A child that has used the client forks again, as servers do that load a program in a process of its own."""

    def deed() -> None:
        add(client, 1, 10)
        assert_ended_well([fork(partial(add, client, 2, 10)), fork(partial(add, client, 3, 10))])
        add(client, 4, 10)

    with Client(dsn) as client:
        add(client, 0, 10)
        assert_ended_well([fork(deed)])
    assert counted(dsn) == (50, 50)


def test_a_fork_while_a_thread_opens_the_client(dsn: str) -> None:
    """The thread holds the client's lock, which nobody releases in the child: the child has another one."""
    opens, goes_on = threading.Event(), threading.Event()
    parent = os.getpid()

    def asked() -> str:
        if os.getpid() == parent and not opens.is_set():
            opens.set()
            assert goes_on.wait(SECONDS)
        return dsn

    client = Client(asked)
    thread = threading.Thread(target=client.open)
    thread.start()
    assert opens.wait(SECONDS)
    child = fork(partial(add, client, 1, 10))
    assert_ended_well([child])
    goes_on.set()
    thread.join()
    add(client, 0, 10)
    client.close()
    assert counted(dsn) == (20, 20)


def test_forks_while_threads_use_the_client(dsn: str) -> None:
    """Locks of the pool and its connections are held by threads that a child does not have."""
    stop = threading.Event()
    added = [0] * 4

    def keep_adding(number: int) -> None:
        while not stop.is_set():
            client.enqueue("t", {"thread": number, "job": added[number]})
            added[number] += 1

    with Client(dsn, max_size=4) as client:
        threads = [threading.Thread(target=keep_adding, args=(number,)) for number in range(len(added))]
        for thread in threads:
            thread.start()
        for round_ in range(5):
            assert_ended_well([fork(partial(add, client, 2 * round_ + one, 10)) for one in range(2)])
        stop.set()
        for thread in threads:
            thread.join()
    assert all(added)
    assert counted(dsn) == (sum(added) + 100, sum(added) + 100)


def test_a_pool_that_was_given_belongs_to_its_process(dsn: str) -> None:
    """A child cannot use it, and is told so at once, instead of sharing a socket with its parent."""
    told, tells = os.pipe()

    def deed() -> None:
        try:
            client.enqueue("t", {"child": 1})
        except BackfillError as error:
            os.write(tells, str(error).encode())

    with psycopg_pool.ConnectionPool(dsn, min_size=1) as pool, Client(pool=pool) as client:
        client.enqueue("t", {"parent": 1})
        assert_ended_well([fork(deed)])
        client.enqueue("t", {"parent": 2})
    assert select.select([told], [], [], 0)[0]
    assert b"another process opened it" in os.read(told, 1_000)
    os.close(told)
    os.close(tells)
    assert counted(dsn) == (2, 2)


def test_spawned_children(dsn: str) -> None:
    """Children that are started anew make clients of their own."""
    spawning = multiprocessing.get_context("spawn")
    with Client(dsn) as client:
        add(client, 0, 50)
        children = [spawning.Process(target=sync_children.adds_alone, args=(dsn, number)) for number in (1, 2)]
        for child in children:
            child.start()
        for child in children:
            child.join(SECONDS)
        assert [child.exitcode for child in children] == [0, 0]
        add(client, 3, 50)
    assert counted(dsn) == (200, 200)


@pytest.mark.parametrize("inside", ["bulk", "block"])
def test_a_child_that_leaves_a_call_of_its_parent(dsn: str, inside: str) -> None:
    """It cannot undo its parent's transaction, nor end its session: the parent's rows are all there."""

    def leave() -> None:
        child = os.fork()
        if not child:
            sys.exit()
        os.waitpid(child, 0)

    def numbered() -> Iterator[NewJob[Any]]:
        for n in range(5000):
            if n == 2500:
                leave()
            yield NewJob("t", {"n": n})

    with Client(dsn) as client:
        parent = os.getpid()
        try:
            if inside == "bulk":
                client.enqueue_bulk(numbered())
            else:
                with client.pool.connection() as connection, connection.transaction():
                    client.enqueue_bulk([NewJob("t", {"n": n}) for n in range(2500)], connection=connection)
                    leave()
                    client.enqueue_bulk([NewJob("t", {"n": n}) for n in range(2500, 5000)], connection=connection)
        finally:
            if os.getpid() != parent:
                os._exit(0)
    assert counted(dsn) == (5000, 5000)
