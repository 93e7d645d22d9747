"""What holds a job back, asked for an operator, and as plain data for programs."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from backfill.client import BackfillClient
from backfill.operate.described import data, limit_data, rate_data
from backfill.operate.permission import permitted
from backfill.whys import Why, WhyReason


async def why(client: BackfillClient, number: int) -> Why:
    """Tell what holds a job back, or what became of it.

    Raises:
        InvalidJobError: the number cannot be a job's id.
        BackfillError: the role may not ask.
    """
    with permitted():
        return await client.why(number)


def why_data(found: Why) -> dict[str, Any]:
    """The answer as values of JSON; times are ISO 8601."""
    return {
        "job_id": found.job_id,
        "task": found.task,
        "queue": found.queue,
        "knowing": found.knowing,
        "looked_at": found.looked_at.isoformat(),
        "reasons": [_reason(reason) for reason in found],
    }


def _reason(reason: WhyReason) -> dict[str, Any]:
    return {
        "kind": str(reason.kind),
        "text": reason.text,
        "since": _time(reason.since),
        "until": _time(reason.until),
        "worker_id": reason.worker_id,
        "job_id": reason.job_id,
        "control": None if reason.control is None else data(reason.control),
        "limit": limit_data(reason.limit),
        "rate": rate_data(reason.rate),
        "holders": [
            {"job_id": holder.job_id, "worker_id": holder.worker_id, "since": _time(holder.since)}
            for holder in reason.holders
        ],
    }


def _time(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()
