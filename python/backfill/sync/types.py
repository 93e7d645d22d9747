"""The types of what a caller may lend to the synchronous client: connections and pools."""

from __future__ import annotations

from typing import Any, TypeAlias

import psycopg
import psycopg_pool

SyncConnection: TypeAlias = psycopg.Connection[Any]
SyncPool: TypeAlias = psycopg_pool.ConnectionPool[Any]
