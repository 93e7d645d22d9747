"""Carries out what verbs ask, for the asynchronous client.

Each statement is run on a connection, and its answer is sent back to the steps.

This is the counterpart of `client/verbs`, which says what is asked.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from backfill.client.carrier import AnyConnection
from backfill.client.execute import in_transaction, run
from backfill.client.verbs.asked import Asked, Step, Verb
from backfill.client.ways import goes_by_functions

T = TypeVar("T")


async def carry_out(connection: AnyConnection, schema: str, asked: Asked[T]) -> T:
    """Do all that a verb asks on one connection, and return its answer.

    An error that has ended the connection is not sent to the steps, since they can ask nothing more on that connection.

    Args:
        connection: any connection.
        schema: the queue's schema.
        asked: the verb's statement or steps.

    Returns:
        The verb's answer, as it was read from the result.
    """

    async def answer(step: Step) -> Any:
        if isinstance(step, Verb):
            return await ask(connection, schema, step)
        async with in_transaction(connection):
            return await carry_out(connection, schema, step.steps)

    return await follow(asked, answer, may_go_on=lambda: not connection.closed)


async def ask(connection: AnyConnection, schema: str, verb: Verb[T]) -> T:
    """Run one statement, or the one for producers if the connection's role is a producer's, and read its result."""
    if verb.for_producers is not None and await goes_by_functions(connection, schema):
        verb = verb.for_producers
    return verb.read(await run(connection, verb.statement, schema, verb.parameters, binary=verb.binary))


async def follow(
    asked: Asked[T], answer: Callable[[Step], Awaitable[Any]], *, may_go_on: Callable[[], bool] = lambda: True
) -> T:
    """Answer steps one after the other until they return.

    Args:
        asked: the steps.
        answer: does one step and returns its answer.
        may_go_on: tells whether an error is sent to the steps, which may continue; if not, it is raised at once.
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
