"""A server whose commits wait for a synchronous standby, both as safe as PostgreSQL is by default."""

from __future__ import annotations

from typing import Final

import psycopg

from plugins.away import MakeServer, copy_as_standby
from sides.backlog import migrated

_SETTINGS: Final = {"fsync": "on", "full_page_writes": "on", "wal_level": "replica", "max_wal_senders": "4"}


def replicated(make_server: MakeServer) -> str:
    """The DSN of a primary that has the queue's schema."""
    primary = make_server(settings=_SETTINGS)
    migrated(primary.dsn)
    copy_as_standby(primary, primary.folder.parent / "server1")
    make_server(settings=_SETTINGS)
    with psycopg.connect(primary.dsn, autocommit=True) as connection:
        connection.execute("alter system set synchronous_standby_names = 'standby'")
        connection.execute("select pg_reload_conf()")
        while connection.execute("select 1 from pg_stat_replication where sync_state = 'sync'").fetchone() is None:
            pass  # it connects within a second
    return primary.dsn
