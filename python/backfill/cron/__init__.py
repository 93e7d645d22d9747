"""Recurring items: reading and writing a crontab, and computing when its items run.

Nothing here knows the database or the event loop, and nothing here schedules: it reads, writes and computes.
"""

from __future__ import annotations

from backfill.cron.printing import print_crontab
from backfill.cron.runs import due_at, next_runs, runs_between
from backfill.cron.schedule import Dst, Missed, Overlap, Schedule
from backfill.cron.text import parse_crontab
from backfill.errors import CrontabParseError

__all__ = [
    "CrontabParseError",
    "Dst",
    "Missed",
    "Overlap",
    "Schedule",
    "due_at",
    "next_runs",
    "parse_crontab",
    "print_crontab",
    "runs_between",
]
