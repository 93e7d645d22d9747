"""The types of connections, pools and connection strings, apart from the modules that make them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import psycopg
from psycopg_pool import AsyncConnectionPool

Dsn: TypeAlias = str | Callable[[], str | Awaitable[str]]
"""A connection string, or a callable, which may be async, that is asked for one at each new connection."""
Connection: TypeAlias = psycopg.AsyncConnection[Any]
Pool: TypeAlias = AsyncConnectionPool[Any]
Lent: TypeAlias = object
"""What verbs take as `connection=`: a connection, session, pool or engine of a library that the client knows.

It is checked when it is used, since its type belongs to a library that may not be installed.
"""
