"""The synchronous client, for programs without an event loop: web servers of forked processes, threads and scripts.

`Client` has the calls of `BackfillClient` with the same keywords, and the same statements.
"""

from __future__ import annotations

from backfill.sync.client import Client
from backfill.sync.verbs.schedules import Schedules

__all__ = ["Client", "Schedules"]
