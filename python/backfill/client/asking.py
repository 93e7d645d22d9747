"""How an asynchronous client carries out what its verbs ask.

Each statement is run on a connection, and its answer is sent back to the steps.

The counterpart of `client/verbs`, which says what is asked.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from backfill.client.execute import in_transaction, run
from backfill.client.verbs.asked import Asked, Step, Verb
from backfill.client.ways import goes_by_functions
from backfill.storage.types import Connection

T = TypeVar("T")


async def carry_out(connection: Connection, schema: str, asked: Asked[T]) -> T:
    """Do all that a verb asks on one connection, and give its answer.

    An error that has ended the connection is not shown to the steps, since they can ask nothing more on it.

    Args:
        connection: any.
        schema: the queue's.
        asked: the verb's statement or steps.

    Returns:
        What the verb's result was read as.
    """

    async def answer(step: Step) -> Any:
        if isinstance(step, Verb):
            return await ask(connection, schema, step)
        async with in_transaction(connection):
            return await carry_out(connection, schema, step.steps)

    return await follow(asked, answer, may_go_on=lambda: not connection.closed)


async def ask(connection: Connection, schema: str, verb: Verb[T]) -> T:
    """Run one statement, or the one that is for producers where the connection's role is one, and read its result."""
    if verb.for_producers is not None and await goes_by_functions(connection, schema):
        verb = verb.for_producers
    return verb.read(await run(connection, verb.statement, schema, verb.parameters, binary=verb.binary))


async def follow(
    asked: Asked[T], answer: Callable[[Step], Awaitable[Any]], *, may_go_on: Callable[[], bool] = lambda: True
) -> T:
    """Answer steps one after the other until they return.

    Args:
        asked: the steps.
        answer: does one step.
        may_go_on: whether steps are asked for more after an error; else it is raised at once.
    """
    steps = iter(asked)
    try:
        step = next(steps)
        while True:
            try:
                answered = await answer(step)
            except Exception as error:
                if not may_go_on():
                    raise
                step = steps.throw(error)
            else:
                step = steps.send(answered)
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        steps.close()
