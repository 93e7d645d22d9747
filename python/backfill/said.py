"""The part of an error's text that may be shown: no rows, no statements and no input.

This module is used wherever an error's text goes into a log message, into `last_error` or into an exception of this
package. PostgreSQL puts whole rows into the DETAIL of an error and statements into its CONTEXT; pydantic and msgspec
quote the input that they refuse. Such a text may be the payload of somebody's job, and more people read logs than jobs.
The kind of an error is recognised by its shape. So this module imports no database driver, and it knows the errors of
the drivers that handlers use too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

LONGEST_LINE: Final = 500
_PARTS: Final = 10
_LOOKS: Final = 10
_CHAIN: Final = 100
_SERVER_LINES: Final = re.compile(
    r"\n\s*(?:DETAIL|CONTEXT|HINT|QUERY|STATEMENT):  .*"  # as libpq and asyncpg write them
    r"|\nLINE \d+: [^\n]*\n *\^.*"
    r"|\n\[(?:SQL|parameters): .*",  # as SQLAlchemy does
    re.DOTALL,
)
_DETAILS: Final = re.compile(r"\s(?:DETAIL|CONTEXT|HINT|QUERY|STATEMENT|LINE \d+):\s.*", re.DOTALL)
_QUOTED: Final = re.compile('["„“”«»].*["„“”«»]', re.DOTALL)
_DRIVER_QUOTED: Final = re.compile(r"(?<!\w)['\"].*['\"]", re.DOTALL)
_QUOTING: Final = re.compile(r"22(?!P05|021)...|42601")
"""The SQLSTATEs whose primary message quotes the input: bad data (except for encodings) and syntax errors."""
_MSGSPEC_QUOTES: Final = re.compile(
    r"^(Invalid (?:enum )?value|Object contains unknown field) .*?(?= - at `|$)", re.DOTALL
)
_MSGSPEC_PLACE: Final = re.compile(r" - at `[^\n]*$")
_PYDANTIC_INPUT: Final = re.compile(r"input_value=.*(?=input_type=)", re.DOTALL)
"""What pydantic quotes of a value that it could not write; the value's class, which follows, may be shown."""
_FIELD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,39}")


def said(error: BaseException, limit: int = LONGEST_LINE) -> str:
    """The message of an error on one line, without rows, statements and input; "" if it has no message.

    Args:
        error: any error; if its own code fails, the text names the class of that failure.
        limit: the greatest number of characters.
    """
    line = " ".join(message(error).split())
    return line if len(line) <= limit else f"{line[: limit - 3]}..."


def why(error: BaseException, limit: int = LONGEST_LINE) -> str:
    """The message of an error on one line, or the name of its class if it has no message."""
    return said(error, limit) or type(error).__name__


def named(error: BaseException, limit: int = LONGEST_LINE) -> str:
    """The class of an error and its message on one line."""
    name, text = type(error).__qualname__, said(error, limit)
    return f"{name}: {text}" if text else name


def without_details(text: str) -> str:
    """A server's message without its DETAIL and what follows; it may be in libpq's form or already on one line."""
    return _DETAILS.sub("", text)


def stripped(error: BaseException, *, context: bool = False) -> None:
    """Remove from a database's error, and from its causes, all text beyond the primary message.

    This is for errors that this package raises or logs as they are, since a traceback prints them and all errors in
    their chain. `diag` still has all that the server said, for a program that asks for it.

    Args:
        error: the error, which is changed in place.
        context: whether to strip the errors in `__context__` too. Leave it off if they may be the caller's: an error
            that is raised in a caller's `except` block has the caller's error there.
    """
    waiting, seen = [error], set[int]()
    while waiting and len(seen) < _CHAIN:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if _primary(one) is not None:
            one.args = (message(one), *one.args[1:])
            if type(one).__module__.partition(".")[0] == "asyncpg":
                vars(one).update(detail=None, hint=None)  # which its errors print too
        others = (one.__cause__, one.__context__ if context else None)
        waiting += [other for other in others if other is not None]
        if isinstance(one, BaseExceptionGroup):
            waiting += one.exceptions


@contextmanager
def stripping() -> Iterator[None]:
    """Run a block of code and strip the errors that leave it."""
    try:
        yield
    except Exception as error:
        stripped(error)
        raise


def message(error: BaseException) -> str:
    """The message of an error as `said` gives it, but with its lines kept and at full length."""
    try:
        return _message(error, _LOOKS)
    except Exception as unprintable:  # noqa: BLE001 - an error's own code may fail, and the error must still be shown
        return f"(its message cannot be had: {type(unprintable).__name__})"


def _message(error: BaseException, looks: int) -> str:
    primary = _primary(error)
    if primary is not None:
        return primary
    inner = _wrapped(error)
    if inner is not None and looks:
        return f"({type(inner).__qualname__}) {_message(inner, looks - 1)}"
    origin = type(error).__module__.partition(".")[0]
    if origin in {"pydantic", "pydantic_core"}:
        return _of_pydantic(error) if hasattr(error, "error_count") else _PYDANTIC_INPUT.sub("", str(error))
    if origin == "msgspec":
        return _of_msgspec(error, looks)
    text = _SERVER_LINES.sub("", str(error))
    if origin == "psycopg" and type(error).__name__ == "DataError":  # a value that the driver could not read or write
        text = _DRIVER_QUOTED.sub("'...'", text)
    return text


def _primary(error: BaseException) -> str | None:
    """The primary message of a database's error with its SQLSTATE; None for any other error."""
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)  # the latter is psycopg2's
    if not isinstance(state, str):
        return None
    text = getattr(getattr(error, "diag", None), "message_primary", None)
    if not isinstance(text, str):
        text = _SERVER_LINES.sub("", str(error))
        if text.endswith(f"(SQLSTATE {state})"):
            return text
    if _QUOTING.fullmatch(state):
        text = _QUOTED.sub('"..."', text)
    return f"{text} (SQLSTATE {state})"


def _wrapped(error: BaseException) -> BaseException | None:
    """The driver's error inside one of SQLAlchemy's or Django's, whose text repeats it with statement and values."""
    original = getattr(error, "orig", None)
    if hasattr(error, "statement") and isinstance(original, BaseException):
        return original
    cause = error.__cause__
    if type(error).__module__ == "django.db.utils" and cause is not None and _primary(cause) is not None:
        return cause
    return None


def _of_pydantic(error: Any) -> str:
    """The place and the reason of each error, never the input; texts of the program's own validators are kept."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    told = [_pydantic_part(part) for part in found[:_PARTS]]
    if len(found) > _PARTS:
        told.append(f"and {len(found) - _PARTS} more")
    return f"{len(found)} validation error{'' if len(found) == 1 else 's'} for {error.title}: {'; '.join(told)}"


def _pydantic_part(part: dict[str, Any]) -> str:
    kind = str(part["type"])
    text = str(part["msg"])
    if kind == "union_tag_invalid":
        text = "Input tag does not match any of the expected tags"
    elif kind in {"uuid_parsing", "url_parsing"}:
        text = text.partition(",")[0]
    place = list(part["loc"])
    if kind == "extra_forbidden" and place:
        place[-1] = ""  # its name came with the input
    return f"{_path(place)}{text} [{kind}]"


def _path(place: Sequence[int | str]) -> str:
    """A place as `items[0].name: `; a key that does not look like a field's name is hidden, since it may be input."""
    steps = []
    for step in place:
        if isinstance(step, int):
            steps.append(f"[{step}]")
        elif _FIELD.fullmatch(step):
            steps.append(f".{step}" if steps else step)
        else:
            steps.append("[...]")
    return f"{''.join(steps)}: " if steps else ""


def _of_msgspec(error: BaseException, looks: int) -> str:
    text = str(error)
    cause = error.__cause__
    if cause is not None and looks:  # a hook or a class's own check raised `cause`; `text` repeats its text
        place = _MSGSPEC_PLACE.search(text)
        return _message(cause, looks - 1) + (place[0] if place else "")
    return _MSGSPEC_QUOTES.sub(r"\1", text)
