"""A primary with a synchronous standby, which takes its place when it is killed, and has a standby of its own then."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psutil

from plugins.away import OwnServer, copy_as_standby
from plugins.periods import let_pass
from plugins.waiting import wait_until
from reading import rows, value

STREAMING = "select count(*) from pg_stat_replication where state = 'streaming' and sync_state = %s"

WAITING = "select count(*) from pg_stat_activity where wait_event = 'SyncRep' and application_name = 'backfill'"


class Succession:
    """Servers that follow each other as the primary, a new one for each failover.

    Args:
        folder: where they are.
        failovers: how many there can be.
        commit: `synchronous_commit` of all: what an acknowledged commit has come to on the standby.
        max_connections: how many connections each takes.

    Attributes:
        dsn: by which whoever is the primary is reached.
    """

    def __init__(self, folder: Path, *, failovers: int, commit: str, max_connections: int = 100) -> None:
        self._folders = [folder / f"server{number}" for number in range(failovers + 1)]
        self._settings = {"wal_level": "replica", "max_wal_senders": "4", "synchronous_commit": commit}
        self._most = max_connections
        self._primary = self._start(self._folders[0])
        self._standby: OwnServer | None = None
        self._used = 1
        hosts = ",".join(str(one / "run") for one in self._folders)
        ports = ",".join("5432" for _ in self._folders)
        self.dsn = f"host={hosts} port={ports} user=postgres dbname=postgres target_session_attrs=read-write"

    async def add_standby(self) -> None:
        """Make the next server a synchronous standby of the primary, and wait until commits wait for it."""
        dsn, folder = self._primary.dsn, self._folders[self._used]
        self._used += 1
        await asyncio.to_thread(copy_as_standby, self._primary, folder)
        self._standby = await asyncio.to_thread(self._start, folder)
        await wait_until(lambda: value(dsn, STREAMING, "async"))
        # Only now: the copy has none, so that the standby waits for nobody once it is the primary.
        await rows(dsn, "alter system set synchronous_standby_names = 'standby'")
        await rows(dsn, "select pg_reload_conf()")
        await wait_until(lambda: value(dsn, STREAMING, "sync"))

    async def fail_over(self, how: str, *, away: float = 0.0) -> None:
        """Let the primary be gone for good, and promote its standby.

        Args:
            how: `stopped` as an operator does, `killed` in the midst of what it does, or `in doubt`: killed while a
                client's commit waits for a standby that does not answer, so that nobody is told what becomes of it.
            away: for how many seconds nobody is the primary.
        """
        assert self._standby is not None
        gone, self._primary, self._standby = self._primary, self._standby, None
        if how == "stopped":
            await gone.stop()
        elif how == "killed":
            await gone.kill()
        else:
            receiver = psutil.Process(await value(self._primary.dsn, "select pid from pg_stat_wal_receiver"))
            receiver.suspend()
            await wait_until(lambda: value(gone.dsn, WAITING))
            await gone.kill()
            receiver.resume()
        await let_pass(away)
        await rows(self._primary.dsn, "select pg_promote()")

    def end(self) -> None:
        """Stop those that run."""
        for server in (self._standby, self._primary):
            if server is not None:
                server.end()

    def _start(self, folder: Path) -> OwnServer:
        return OwnServer(folder, settings=self._settings, max_connections=self._most)
