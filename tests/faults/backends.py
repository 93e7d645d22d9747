"""Backends are ended (pg_terminate_backend): workers' connections, their handlers' and the producers', at random."""

from __future__ import annotations

from faults.field import ADMIN, Field

END = """
select pg_terminate_backend(pid), application_name
from pg_stat_activity
where backend_type = 'client backend' and pid <> pg_backend_pid() and application_name <> %s
order by md5(pid::text || %s)
limit %s
"""


async def fault(field: Field) -> str:
    """Strike one to twelve of them."""
    salt, count = str(field.chance.random()), field.chance.randint(1, 12)
    ended = await field.ask(END, ADMIN, salt, count)
    return f"{len(ended)} ended, {sum('beat' in name for _, name in ended)} of them heartbeats'"
