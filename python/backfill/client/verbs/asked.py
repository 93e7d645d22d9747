"""The values in which a verb says what it asks of the database: one statement, a transaction, or steps of both.

A verb of one statement is a `Verb`. One of several is a generator that yields them one after the other, is sent what
each was read as, and returns the verb's result:

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
    from psycopg.pq.abc import PGresult

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True, eq=False)
class Verb(Generic[T_co]):
    """One statement, and how its result is read.

    Attributes:
        statement: its name.
        parameters: its parameters, all in text.
        read: makes the answer of libpq's result.
        binary: whether the result comes in binary format, as jobs do.
        for_producers: what is asked in its place by a role that has no right on the tables; None where there is nothing
            else.
    """

    statement: str
    parameters: Parameters
    read: Callable[[PGresult], T_co]
    binary: bool = False
    for_producers: Verb[T_co] | None = None

    def __iter__(self) -> Generator[Step, Any, T_co]:
        """The statement as steps: `answer = yield from verb`."""
        answer: T_co = yield self
        return answer


@dataclass(frozen=True, slots=True, eq=False)
class Together(Generic[T_co]):
    """Steps that are one transaction, or a savepoint within one.

    An error of one of its statements undoes all of it, and is raised where the steps around it wait for its answer.

    Attributes:
        steps: what is done in it.
    """

    steps: Asked[T_co]

    def __iter__(self) -> Generator[Step, Any, T_co]:
        """The transaction as a step of others: `answer = yield from Together(steps)`."""
        answer: T_co = yield self
        return answer


Step: TypeAlias = Verb[Any] | Together[Any]
Steps: TypeAlias = Generator[Step, Any, T]
Asked: TypeAlias = Verb[T] | Together[T] | Generator[Step, Any, T]
