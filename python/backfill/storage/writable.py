"""Whether a database takes writes.

This is asked when a client opens, so that a database without writes is named at once. Where a DSN names several hosts,
it is not asked: the driver looks for the host that takes writes, and a failover is waited for.
"""

from __future__ import annotations

import os
from typing import Final

from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row

from backfill.errors import ReadOnlyDatabaseError
from backfill.storage.connection import redacted
from backfill.storage.pooler import without_option
from backfill.storage.statements import render
from backfill.storage.types import Connection

_TOLD: Final = (b"in_hot_standby", b"default_transaction_read_only")
"""Settings of a session that PostgreSQL 14 and later report without being asked."""


async def refuse_read_only(connection: Connection) -> None:
    """Refuse a server that takes no writes.

    Args:
        connection: a connection in autocommit.

    Raises:
        ReadOnlyDatabaseError: the server takes no writes; the message says why, and the way out.
    """
    if all(connection.pgconn.parameter_status(name) == b"off" for name in _TOLD):
        return
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(render("find_read_only"))
        found = await cursor.fetchone() or {"standby": False, "read_only": False}
    where = redacted(connection.info.dsn)
    if found["standby"]:
        raise ReadOnlyDatabaseError(
            f"PostgreSQL at {where} is a standby, which takes no writes: connect to the primary, or name all hosts in "
            "the"
            " DSN with target_session_attrs=read-write, and the primary is found, after a failover too"
        )
    if found["read_only"]:
        raise ReadOnlyDatabaseError(
            f"PostgreSQL at {where} takes no writes: default_transaction_read_only is on for this role or database;"
            " set it to off (`alter role ... set default_transaction_read_only = off`), or connect with another role"
        )


def names_several_hosts(dsn: object, keywords: object = None) -> bool:
    """Whether a DSN, a pool's arguments or the environment name several hosts.

    A connection cannot tell: it knows only the host that it is connected to.

    Args:
        dsn: a connection string; anything else, such as a pool's callable, is ignored.
        keywords: further arguments of a pool; anything but a dict is ignored.
    """
    given = conninfo_to_dict(without_option(dsn)[0]) if isinstance(dsn, str) else {}
    said = {**given, **(keywords if isinstance(keywords, dict) else {})}
    hosts = [said.get(name) or os.environ.get(f"PG{name.upper()}") for name in ("host", "hostaddr")]
    return any("," in str(host or "") for host in hosts)
