"""The types by which a verb says what it asks of the database: one statement, a transaction, or steps of both.

A verb of one statement is a `Verb`. A verb of several statements is a generator: it yields the statements one after the
other, is sent the value that was read from the result of each, and returns the verb's result:

    def take(name: str) -> Steps[bool]:
        found = yield from Verb("find", (name,), read_found)
        return found and (yield from Together(move(name)))
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from backfill.client.prepare import Parameters

if TYPE_CHECKING:
    from backfill.storage.results import Result

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True, eq=False)
class Verb(Generic[T_co]):
    """One statement, and how its result is read.

    Attributes:
        statement: the statement's name.
        parameters: the statement's parameters, all as text.
        read: turns libpq's result into the verb's answer.
        binary: whether the result comes in binary format, as jobs do.
        for_producers: the verb that a role without rights on the tables asks instead; None if there is no other.
    """

    statement: str
    parameters: Parameters
    read: Callable[[Result], T_co]
    binary: bool = False
    for_producers: Verb[T_co] | None = None

    def __iter__(self) -> Generator[Step, Any, T_co]:
        """Return the statement as steps: `answer = yield from verb`."""
        answer: T_co = yield self
        return answer


@dataclass(frozen=True, slots=True, eq=False)
class Together(Generic[T_co]):
    """Steps that run in one transaction, or in a savepoint within a transaction.

    An error in one of the statements undoes all of them, and is raised where the surrounding steps wait for the answer.

    Attributes:
        steps: what is done in the transaction.
    """

    steps: Asked[T_co]

    def __iter__(self) -> Generator[Step, Any, T_co]:
        """Return the transaction as a step of others: `answer = yield from Together(steps)`."""
        answer: T_co = yield self
        return answer


Step: TypeAlias = Verb[Any] | Together[Any]
Steps: TypeAlias = Generator[Step, Any, T]
Asked: TypeAlias = Verb[T] | Together[T] | Generator[Step, Any, T]
