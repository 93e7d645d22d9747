"""The heartbeat: the native thread and its twin in Python, with PostgreSQL, with servers that are none, and forked."""

from __future__ import annotations

import contextlib
import ctypes
import re
import time
from collections.abc import Callable, Iterator
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from backfill._native import HeartbeatThread
from backfill.storage.heartbeat.choice import Heartbeat
from backfill.storage.heartbeat.thread import PythonHeartbeat

from plugins.waiting import Eventually
from twins.beating import (
    SECRET,
    STATEMENT,
    Beats,
    is_readable,
    no_server,
    silent_server,
    stop_quickly,
    talking_server,
)  # fmt: skip

INTERVAL = 0.2
FORMS = {"native": HeartbeatThread, "python": PythonHeartbeat}

Start = Callable[..., Heartbeat]


@pytest.fixture
def beats(empty_dsn: str) -> Iterator[Beats]:
    """A table to beat on."""
    table = Beats(empty_dsn)
    yield table
    table.close()


@pytest.fixture(params=list(FORMS))
def form(request: pytest.FixtureRequest) -> Any:
    """Each of the two."""
    return FORMS[request.param]


@pytest.fixture
def start(form: Any) -> Iterator[Start]:
    """Starts heartbeats, each of which must stop within a second at the test's end, whatever its state."""
    with _starting(form) as starting:
        yield starting


@contextlib.contextmanager
def _starting(form: Any) -> Iterator[Start]:
    made: list[Heartbeat] = []

    def starting(
        conninfo: str,
        *,
        setup: tuple[str, ...] = (),
        statement: str = STATEMENT,
        parameters: tuple[str | None, ...] = ("w",),
        interval: float = INTERVAL,
        timeout: float = 5,
        stuck_after: float | None = None,
        begin: str | None = None,
    ) -> Heartbeat:
        conninfo = conninfo if "password" in conninfo else make_conninfo(conninfo, application_name="beat")
        heartbeat: Heartbeat = form(conninfo, setup, statement, parameters, interval, timeout, stuck_after, begin)
        heartbeat.start()
        made.append(heartbeat)
        return heartbeat

    yield starting
    for heartbeat in made:
        stop_quickly(heartbeat)


async def test_a_beat_in_a_transaction_of_its_own_kind(beats: Beats, start: Start, eventually: Eventually) -> None:
    """The command opens each beat's transaction, which is committed: others see the beats, and nothing stays open."""
    statement = STATEMENT.replace("null::text", "current_setting('transaction_isolation')")
    heartbeat = start(beats.dsn, statement=statement, begin="begin isolation level serializable")
    await eventually(beats.count, lambda count: count >= 3)
    assert heartbeat.report().answer == ("1", "serializable")
    left: LiteralString = "select state from pg_stat_activity where application_name = 'beat' and state like 'idle in%'"
    await eventually(lambda: beats.run(left), lambda found: found == [])


async def test_beats_come_at_the_interval(beats: Beats, start: Start, eventually: Eventually) -> None:
    """One after the other, none long after its time, none before; each says so in the report."""
    heartbeat = start(beats.dsn)
    heartbeat.start()  # a second time is nothing
    await eventually(beats.count, lambda count: count >= 10)
    assert max(beats.gaps()) < 3 * INTERVAL
    assert sum(beats.gaps()) > len(beats.gaps()) * INTERVAL * 0.9
    report = heartbeat.report()
    assert beats.count() - 1 <= report.beats <= beats.count()
    assert report.last_success is not None
    assert 0 <= report.last_success < 3 * INTERVAL
    assert report.connected
    assert report.unbroken is not None
    assert report.unbroken > 8 * INTERVAL
    assert not report.missing
    assert not report.stuck
    assert not report.wants_conninfo
    assert report.failure is None


async def test_news_is_an_answer_that_changed(beats: Beats, start: Start, eventually: Eventually) -> None:
    """The descriptor is readable after the first answer and after another one, and not in between."""
    heartbeat = start(beats.dsn)
    assert is_readable(heartbeat, 10)
    assert heartbeat.report().answer == ("1", None)
    count = beats.count()
    await eventually(beats.count, lambda now: now > count + 3)
    assert not is_readable(heartbeat)
    beats.run("update beats set version = 2")
    assert is_readable(heartbeat, 10)
    assert is_readable(heartbeat)  # until somebody looks
    assert heartbeat.report().answer == ("2", None)
    assert not is_readable(heartbeat)


async def test_a_beat_can_be_had_at_once(beats: Beats, start: Start, eventually: Eventually) -> None:
    """beat_now does not wait for the time, which is an hour away."""
    heartbeat = start(beats.dsn, interval=3600)
    await eventually(beats.count, lambda count: count == 1)
    heartbeat.beat_now()
    await eventually(beats.count, lambda count: count == 2, timeout=5)


async def test_held_interpreters_do_not_stop_the_native_beat(beats: Beats, eventually: Eventually) -> None:
    """While a C function holds the interpreter's lock for 3 seconds, beats come as ever."""
    with _starting(HeartbeatThread) as start:
        start(beats.dsn)
        await eventually(beats.count, lambda count: count >= 2)
        before = beats.count()
        ctypes.PyDLL(None).usleep(3_000_000)
        during = beats.count() - before
        assert during >= 3 / INTERVAL / 2
        assert max(beats.gaps()) < 3 * INTERVAL


async def test_a_missing_row_is_news_and_ends_the_beat(beats: Beats, start: Start, eventually: Eventually) -> None:
    """Given up: no beat follows, whatever happens, until it is resumed by other parameters."""
    heartbeat = start(beats.dsn)
    await eventually(heartbeat.report, lambda report: report.beats >= 2)
    beats.run("delete from beats")
    assert is_readable(heartbeat, 10)
    report = heartbeat.report()
    assert report.missing
    assert report.answer == ("1", None)
    beats.add()
    beats.add("x")
    heartbeat.beat_now()
    heartbeat.set_conninfo(make_conninfo(beats.dsn, application_name="beat"))
    assert not is_readable(heartbeat, 3 * INTERVAL)
    assert beats.count() == beats.count("x") == 0
    heartbeat.resume(["x"])
    await eventually(lambda: beats.count("x"), lambda count: count >= 2, timeout=5)
    assert beats.count() == 0
    assert not heartbeat.report().missing


async def test_a_killed_connection_is_replaced_at_once(beats: Beats, start: Start, eventually: Eventually) -> None:
    """It notices while it rests, says that it was lost, and beats again."""
    heartbeat = start(beats.dsn, interval=3)
    await eventually(heartbeat.report, lambda report: report.beats == 1)
    assert beats.kill() == 1
    assert is_readable(heartbeat, 2)
    after = await eventually(heartbeat.report, lambda report: report.beats == 2, timeout=2)
    assert after.failure is None
    assert after.connected
    assert after.unbroken < 2
    assert not after.wants_conninfo


async def test_connections_killed_again_and_again(beats: Beats, start: Start, eventually: Eventually) -> None:
    """However often."""
    heartbeat = start(beats.dsn)
    for _ in range(5):
        seen = heartbeat.report().beats
        await eventually(heartbeat.report, lambda report, seen=seen: report.beats > seen)
        beats.kill()
    seen = heartbeat.report().beats
    await eventually(heartbeat.report, lambda report: report.beats > seen)


async def test_an_unreachable_server_is_said_and_healed(beats: Beats, start: Start, eventually: Eventually) -> None:
    """It asks for a connection string, and takes one."""
    with no_server() as nowhere:
        heartbeat = start(nowhere)
        assert is_readable(heartbeat, 10)
        report = heartbeat.report()
        assert "refused" in report.failure
        assert report.wants_conninfo
        assert not report.connected
        assert report.beats == 0
        assert report.last_success is None
        assert is_readable(heartbeat, 5)  # and again
        heartbeat.set_conninfo(make_conninfo(beats.dsn, application_name="beat"))
        healed = await eventually(heartbeat.report, lambda report: report.beats >= 1, timeout=5)
    assert healed.failure is None
    assert not healed.wants_conninfo


async def test_an_outage_is_told_to_the_end(beats: Beats, start: Start, eventually: Eventually) -> None:
    """A connection string that goes bad is of no matter while the connection stands."""
    heartbeat = start(beats.dsn)
    await eventually(heartbeat.report, lambda report: report.beats >= 1)
    with no_server() as nowhere:
        heartbeat.set_conninfo(nowhere)
        seen = heartbeat.report().beats
        await eventually(heartbeat.report, lambda report: report.beats > seen + 2)
        beats.kill()
        bad = await eventually(heartbeat.report, lambda report: report.wants_conninfo)
        assert bad.answer == ("1", None)
        assert bad.last_success is not None
        heartbeat.set_conninfo(make_conninfo(beats.dsn, application_name="beat"))
        await eventually(heartbeat.report, lambda report: report.failure is None and report.connected)


SILENT = [
    (silent_server, "connecting"),
    (lambda: talking_server(ready=False), "connecting"),
    (lambda: talking_server(ready=True), "the server's answer"),
]


@pytest.mark.parametrize(("server", "what"), SILENT, ids=["silent", "talks while connecting", "talks for an answer"])
async def test_servers_that_never_answer_are_left(start: Start, server: Any, what: str) -> None:
    """One that is silent, and one that sends notices for ever: the time limit holds."""
    with server() as conninfo:
        begin = time.monotonic()
        heartbeat = start(conninfo, timeout=0.5)
        assert is_readable(heartbeat, 10)
        assert 0.4 < time.monotonic() - begin < 2
        report = heartbeat.report()
        assert report.failure == f"{what} took longer than 0.5 seconds"
        assert report.wants_conninfo is (what == "connecting")
        assert is_readable(heartbeat, 5)
        stop_quickly(heartbeat)


async def test_a_silent_host_does_not_bar_the_next(beats: Beats, start: Start, eventually: Eventually) -> None:
    """Of several hosts the one that takes all the time is not the first again."""
    given = conninfo_to_dict(beats.dsn)
    with silent_server() as conninfo:
        ports = f"{conninfo_to_dict(conninfo)['port']},{given['port']}"
        both = make_conninfo(beats.dsn, host=f"127.0.0.1,{given['host']}", port=ports, sslmode="disable")
        heartbeat = start(both, timeout=0.5)
        await eventually(heartbeat.report, lambda report: report.beats > 0, timeout=5)


async def test_it_stops_while_it_connects(start: Start) -> None:
    """A time limit of an hour does not make it wait."""
    with silent_server() as conninfo:
        heartbeat = start(conninfo, timeout=3600)
        assert not is_readable(heartbeat, 0.2)
        stop_quickly(heartbeat)


async def test_a_beat_that_waits_for_a_lock_is_given_up(beats: Beats, start: Start, eventually: Eventually) -> None:
    """After its time, on another connection; stopped in the midst of it, it ends."""
    with psycopg.connect(beats.dsn) as other:
        other.execute("select from beats for update")
        heartbeat = start(beats.dsn, timeout=0.3, setup=("set lock_timeout = '2s'",))
        report = await eventually(heartbeat.report, lambda report: report.failure is not None)
        assert report.failure == "the server's answer took longer than 0.3 seconds"
        assert not report.wants_conninfo
        patient = start(beats.dsn, timeout=60, setup=("set lock_timeout = '2s'",))
        await eventually(patient.report, lambda report: report.connected)
        stop_quickly(patient)
        other.rollback()
        await eventually(heartbeat.report, lambda report: report.beats > 0)
    heartbeat.stop(5)
    await eventually(beats.connections, lambda count: count == 0)  # those that were given up end by their own limit


@pytest.mark.parametrize(
    ("statement", "setup", "said"),
    [
        ("update nothing set a = $1::text || $2::text returning 1", (), 'relation "nothing" does not exist'),
        ("select $1::int, $2::float8", (), 'invalid input syntax for type integer: "w"'),
        (STATEMENT, ("set no_such_setting = 1",), "no_such_setting"),
        ("copy beats to stdout", (), "COPY|bind message supplies 2 parameters"),
        ("begin", (), "bind message supplies 2 parameters"),
        ("update beats set lag = $2::float8 where id = $1::text", (), "gives no rows"),
        (STATEMENT, ("copy beats to stdout",), "is a COPY"),
        (STATEMENT, ("copy beats from stdin",), "is a COPY"),
        ("", (), "bind message|gives no rows"),
    ],
)
async def test_refused_statements_are_failures(
    beats: Beats, start: Start, eventually: Eventually, statement: str, setup: tuple[str, ...], said: str
) -> None:
    """They are tried again, and never very often."""
    heartbeat = start(beats.dsn, statement=statement, setup=setup, interval=5)
    failures = 0
    deadline = time.monotonic() + 0.5
    while time.monotonic() < deadline or failures < 2:
        assert is_readable(heartbeat, 10)
        report = heartbeat.report()
        assert re.search(said, report.failure or "")
        assert not report.wants_conninfo
        assert report.beats == 0
        failures += 1
    assert failures <= 6


async def test_the_lag_is_written(beats: Beats, start: Start, eventually: Eventually) -> None:
    """It grows while the loop says nothing, and falls when it does."""
    heartbeat = start(beats.dsn)
    await eventually(beats.lag, lambda lag: lag > 3 * INTERVAL)
    heartbeat.alive()
    heartbeat.beat_now()
    await eventually(beats.lag, lambda lag: 0 <= lag < INTERVAL)


async def test_a_loop_that_is_stuck_has_no_beat(beats: Beats, start: Start, eventually: Eventually) -> None:
    """Beats end when the lag passes the limit, even those asked for, and begin again when it falls."""
    heartbeat = start(beats.dsn, stuck_after=3 * INTERVAL)
    await eventually(heartbeat.report, lambda report: report.stuck)
    count = beats.count()
    assert 1 <= count <= 4
    heartbeat.beat_now()
    await eventually(heartbeat.report, lambda report: report.last_success > 6 * INTERVAL)
    assert beats.count() == count
    assert beats.connections() == 1
    heartbeat.alive()
    await eventually(heartbeat.report, lambda report: report.beats > count and not report.stuck, timeout=3)


async def test_noise_harms_nothing(
    beats: Beats, start: Start, eventually: Eventually, capfd: pytest.CaptureFixture[str]
) -> None:
    """A thousand notices with every beat, and thousands of notifications, are read and dropped; nothing is printed."""
    beats.run("""
        create function noise() returns trigger language plpgsql as $$ begin
          for i in 1..1000 loop raise notice 'noise %', i; end loop;
          return new;
        end $$;
        create trigger noise before update on beats for each row execute function noise()
    """)
    heartbeat = start(beats.dsn, setup=("listen noise",))
    await eventually(heartbeat.report, lambda report: report.beats >= 2)
    for _ in range(5):
        beats.run("select pg_notify('noise', repeat('x', 1000) || n) from generate_series(1, 5000) n")
    seen = heartbeat.report().beats
    await eventually(heartbeat.report, lambda report: report.beats > seen + 5)
    assert max(beats.gaps()) < 1
    assert heartbeat.report().failure is None
    assert capfd.readouterr() == ("", "")


async def test_texts_are_utf8(start: Start, server_dsn: str, eventually: Eventually) -> None:
    """Whatever the session's encoding would be; nulls are nulls, and big answers whole."""
    heartbeat = start(
        make_conninfo(server_dsn, client_encoding="LATIN1"),
        statement="select $1::text, $2::text, repeat('é', 300000), length($1::text), $3::float8 >= 0",
        parameters=("ü€\n'", None),
    )
    report = await eventually(heartbeat.report, lambda report: report.beats > 0)
    assert report.answer == ("ü€\n'", None, "é" * 300000, "4", "t")


@pytest.mark.parametrize(
    "conninfo", [f"password={SECRET} nonsense", f"password='{SECRET}", f"x={SECRET} password={SECRET}"]
)
async def test_an_unreadable_connection_string_is_not_shown(
    start: Start, eventually: Eventually, conninfo: str
) -> None:
    """It is a failure like any other, without its text."""
    heartbeat = start(conninfo)
    report = await eventually(heartbeat.report, lambda report: report.failure is not None)
    assert "cannot be read" in report.failure
    assert report.wants_conninfo
