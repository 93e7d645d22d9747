"""What is done with calls that went together if their statement fails.

Used by `senders`.
"""

from __future__ import annotations

from typing import Final

import psycopg

from backfill.errors import BackfillError

_ABOUT_ROWS: Final = ("21", "22", "23", "54", "P0")
"""Classes of errors that one row may have caused: bad values, constraints, limits, and what triggers raise."""


def is_about_rows(error: BaseException) -> bool:
    """Tell whether the server refused a statement because of one of its rows, so that the others can be written."""
    return isinstance(error, psycopg.Error) and (error.sqlstate or "")[:2] in _ABOUT_ROWS


def is_refusal(error: BaseException) -> bool:
    """Tell whether the server refused a statement, so that nothing of it was written."""
    return isinstance(error, psycopg.Error) and error.sqlstate is not None


def own_copy(error: Exception) -> Exception:
    """Return an error for one of the calls that share it.

    An exception that is raised in several tasks would collect the tracebacks of them all.
    """
    if not isinstance(error, (BackfillError, psycopg.Error)):
        return error
    try:
        copy = type(error)(*error.args)
    except TypeError:  # the class takes other arguments
        return error
    copy.__cause__ = error.__cause__
    return copy
