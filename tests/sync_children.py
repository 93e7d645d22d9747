"""What the children of the synchronous client's tests do: in a module that a child which is started anew can import."""

from __future__ import annotations

from backfill.sync import Client


def add(client: Client, number: int, jobs: int = 1_000) -> None:
    """Add jobs one by one, each with a payload that no other one has."""
    for job in range(jobs):
        client.enqueue("t", {"child": number, "job": job})


def adds_alone(dsn: str, number: int) -> None:
    """Add jobs by a client of the child's own."""
    with Client(dsn) as client:
        add(client, number, 50)
