"""What an error said, as far as it may be shown: no row, no statement and no input.

Used wherever an error's text goes into a log message, into `last_error` or into an exception of ours. PostgreSQL puts
whole rows into the DETAIL of an error and statements into its CONTEXT; pydantic and msgspec quote the input that they
refuse. Such a text is the payload of somebody's job, and logs are read by more people than jobs are. Errors are told
apart by their shape, so that no database driver is imported here and those that handlers use are known too.
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
"""SQLSTATEs whose primary message quotes what was given: bad data (but for encodings), and syntax errors."""
_MSGSPEC_QUOTES: Final = re.compile(
    r"^(Invalid (?:enum )?value|Object contains unknown field) .*?(?= - at `|$)", re.DOTALL
)
_MSGSPEC_PLACE: Final = re.compile(r" - at `[^\n]*$")
_PYDANTIC_INPUT: Final = re.compile(r"input_value=.*(?=input_type=)", re.DOTALL)
"""What pydantic quotes of a value that it could not write; the class of the value, which follows, may be told."""
_FIELD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,39}")


def said(error: BaseException, limit: int = LONGEST_LINE) -> str:
    """The message of an error on one line: what happened, without rows, statements and input; "" where it has none.

    Args:
        error: any; of one whose own code fails, the class of that failure is told.
        limit: characters at most.
    """
    line = " ".join(message(error).split())
    return line if len(line) <= limit else f"{line[: limit - 3]}..."


def why(error: BaseException, limit: int = LONGEST_LINE) -> str:
    """The message of an error on one line, or its class where it has none."""
    return said(error, limit) or type(error).__name__


def named(error: BaseException, limit: int = LONGEST_LINE) -> str:
    """The class of an error and its message, on one line."""
    name, text = type(error).__qualname__, said(error, limit)
    return f"{name}: {text}" if text else name


def without_details(text: str) -> str:
    """A server's message, as libpq words it or on one line already, without its DETAIL and what follows."""
    return _DETAILS.sub("", text)


def stripped(error: BaseException, *, context: bool = False) -> None:
    """Take from a database's error, and from its causes, the text that says more than its primary message.

    For errors that are raised or logged by us as they are: a traceback prints them, and all in their chain. `diag`
    still has what the server said, for a program that asks for it.

    Args:
        error: changed in place.
        context: whether what it was raised beside is ours, too. In a caller's `except` block it is the caller's.
    """
    waiting, seen = [error], set[int]()
    while waiting and len(seen) < _CHAIN:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if _primary(one) is not None:
            one.args = (message(one), *one.args[1:])
        others = (one.__cause__, one.__context__ if context else None)
        waiting += [other for other in others if other is not None]
        if isinstance(one, BaseExceptionGroup):
            waiting += one.exceptions


@contextmanager
def stripping() -> Iterator[None]:
    """A stretch of code whose errors leave it stripped."""
    try:
        yield
    except Exception as error:
        stripped(error)
        raise


def message(error: BaseException) -> str:
    """The same as `said`, with its lines as they are."""
    try:
        return _message(error, _LOOKS)
    except Exception as unprintable:  # noqa: BLE001 - an error's own code may fail, and it must be told all the same
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
    """The primary message of a database's error with its SQLSTATE; None where it is no such error."""
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
    """The driver's error within one of SQLAlchemy's or Django's, whose own text repeats it with statement and values."""
    original = getattr(error, "orig", None)
    if hasattr(error, "statement") and isinstance(original, BaseException):
        return original
    cause = error.__cause__
    if type(error).__module__ == "django.db.utils" and cause is not None and _primary(cause) is not None:
        return cause
    return None


def _of_pydantic(error: Any) -> str:
    """Where and why, of each error; never the input. A validator's own words are the program's, and stay."""
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
    """`items[0].name: `; a key that looks like no field's name may be anything, and is not shown."""
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
    if cause is not None and looks:  # raised by a hook or a class's own check, whose text it repeats
        place = _MSGSPEC_PLACE.search(text)
        return _message(cause, looks - 1) + (place[0] if place else "")
    return _MSGSPEC_QUOTES.sub(r"\1", text)
