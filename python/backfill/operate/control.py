"""What an operator says to the fleet: pauses, the concurrency of lanes, limits, and how each of them is undone.

The client's verbs do the work. Here, a role that lacks the rights is told how it gets them, and a limit or a
concurrency can be undone by the name of its task or lane.
"""

from __future__ import annotations

from backfill.client import BackfillClient
from backfill.controls import Control, ControlKind, named_subject
from backfill.limits import Limit, Rate
from backfill.operate.permission import permitted


async def standing(client: BackfillClient) -> list[Control]:
    """Return all that stands said to the fleet, in the order in which it was said.

    Raises:
        BackfillError: the role may not read it.
    """
    with permitted():
        return await client.controls()


async def pause(
    client: BackfillClient,
    *,
    task: str | None = None,
    queue: str | None = None,
    everything: bool = False,
    reason: str = "",
    by: str | None = None,
) -> Control:
    """Pause a task, a serial queue or everything; the arguments are those of the client's verb.

    Raises:
        InvalidJobError: an argument cannot be used; the error names it.
        BackfillError: the role has no operator's rights.
    """
    with permitted():
        return await client.pause(task=task, queue=queue, everything=everything, reason=reason, by=by)


async def unknown(client: BackfillClient, task: str) -> bool:
    """Return whether no live worker knows a task, so that its name may be misspelt.

    Raises:
        InvalidJobError: the name cannot be a task's.
        BackfillError: the role may not read it.
    """
    with permitted():
        return await client.workers_knowing(task) == 0


async def resume(
    client: BackfillClient, *, task: str | None = None, queue: str | None = None, everything: bool = False
) -> Control | None:
    """End a pause, and return it; None if there is none.

    Raises:
        InvalidJobError: an argument cannot be used; the error names it.
        BackfillError: the role has no operator's rights.
    """
    with permitted():
        return await client.resume(task=task, queue=queue, everything=everything)


async def set_concurrency(
    client: BackfillClient, lane: str, concurrency: int, *, reason: str = "", by: str | None = None
) -> Control:
    """Set the concurrency of a lane; the arguments are those of the client's verb.

    Raises:
        InvalidJobError: an argument cannot be used; the error names it.
        BackfillError: the role has no operator's rights.
    """
    with permitted():
        return await client.set_concurrency(lane, concurrency, reason=reason, by=by)


async def set_limit(
    client: BackfillClient,
    task: str,
    limit: Limit | int | None = None,
    rate: Rate | None = None,
    *,
    reason: str = "",
    by: str | None = None,
) -> Control:
    """Set the limit and the rate of a task, or, with neither, that it has none.

    Raises:
        ConfigurationError: the limit or the rate cannot be used.
        InvalidJobError: another argument cannot be used; the error names it.
        BackfillError: the role has no operator's rights.
    """
    with permitted():
        return await client.set_limit(task, limit, rate, reason=reason, by=by)


async def lift_concurrency(client: BackfillClient, lane: str) -> Control | None:
    """Undo what is said of a lane's concurrency, and return it; None if nothing is said of it.

    Raises:
        InvalidJobError: the name cannot be a lane's.
        BackfillError: the role has no operator's rights.
    """
    return await _lift(client, ControlKind.CONCURRENCY, named_subject("lane", lane))


async def lift_limit(client: BackfillClient, task: str) -> Control | None:
    """Undo what is said of a task's limit, and return it; None if nothing is said of it.

    What the task's code says holds again.

    Raises:
        InvalidJobError: the name cannot be a task's.
        BackfillError: the role has no operator's rights.
    """
    return await _lift(client, ControlKind.LIMIT, named_subject("task", task))


async def undo(client: BackfillClient, number: int) -> Control | None:
    """Undo one control by its number, whatever it says, and return it; None if none of that number stands.

    Raises:
        InvalidJobError: the number cannot be one.
        BackfillError: the role has no operator's rights.
    """
    with permitted():
        return await client.undo(number)


async def _lift(client: BackfillClient, kind: ControlKind, subject: str) -> Control | None:
    with permitted():
        while True:
            found = [
                control for control in await client.controls() if (control.kind, control.subject) == (kind, subject)
            ]
            if not found:
                return None
            undone = await client.undo(found[0])
            if undone is not None:
                return undone
            # Somebody has said it anew or has undone it since it was read.
