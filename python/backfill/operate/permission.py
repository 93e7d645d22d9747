"""What an operator is told whose database role lacks the rights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from backfill.errors import BackfillError


@contextmanager
def permitted() -> Iterator[None]:
    """Run a block that asks the database for something that an operator may do.

    Raises:
        BackfillError: the role may not do it; the message says how it gets the rights.
    """
    try:
        yield
    except psycopg.errors.InsufficientPrivilege as error:
        raise BackfillError(
            "the database role has no operator's rights: let the owner run what "
            "`backfill migrate --grants operator --role NAME` prints, or connect as another role"
        ) from error
