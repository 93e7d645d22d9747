"""What operators say: the types of the verbs' answers, and calls that type checkers refuse."""

from __future__ import annotations

from datetime import datetime
from typing import assert_type

from backfill import BackfillClient, Control, ControlKind, Limit, Rate, Why, WhyKind


async def say(client: BackfillClient) -> None:
    """Each verb gives exactly its own type."""
    pause = await client.pause(task="send_email", reason="the provider is down", by="ann")
    assert_type(pause, Control)
    assert_type(pause.kind, ControlKind | str)
    assert_type(pause.limit, Limit | None)
    assert_type(pause.rate, Rate | None)
    assert_type(pause.said_at, datetime | None)
    assert_type(pause.everything, bool)
    assert_type(await client.resume(queue="user:42"), Control | None)
    assert_type(await client.set_concurrency("heavy", 2), Control)
    assert_type(await client.set_limit("import", 4), Control)
    assert_type(await client.set_limit("import", Limit(4), Rate(100)), Control)
    assert_type(await client.controls(), list[Control])
    assert_type(await client.undo(pause), Control | None)
    assert_type(await client.undo(pause.id), Control | None)


async def ask(client: BackfillClient) -> None:
    """The answer is a collection of reasons."""
    why = await client.why(42)
    assert_type(why, Why)
    assert_type(why.kinds, frozenset[WhyKind])
    assert_type([reason.until for reason in why], list[datetime | None])


async def refused(client: BackfillClient) -> None:
    """What is given by its place or of another type is told before the program runs."""
    await client.pause("send_email")  # error: positional
    await client.pause(task=5)  # error: str
    await client.set_limit("import", "4")  # error: Limit
    await client.undo("1")  # error: Control
