"""What a failed attempt leaves behind: the text of `last_error`, from whatever a handler raised.

The exception itself is let go at once, since its traceback would keep the handler's locals in memory.
"""

from __future__ import annotations

import traceback
from types import TracebackType
from typing import Final

LONGEST_ERROR: Final = 8_000
_FRAMES: Final = 12
_GROUP_MEMBERS: Final = 10
_CUT: Final = " ... "


def describe(error: BaseException) -> str:
    """Type, message and a shortened traceback of an error, fit for PostgreSQL: no NUL, no lone surrogates.

    An exception group is looked into: its first members are listed below it, and theirs.
    """
    lines = [*_summaries(error, 0), *_frames(error.__traceback__)]
    cause = error.__cause__
    if cause is None and not error.__suppress_context__:
        cause = error.__context__
    if cause is not None:
        lines.append(f"caused by {_summary(cause)}")
    return cleansed("\n".join(lines))


def cleansed(text: str) -> str:
    """Text that PostgreSQL can hold and that is not too long to be read."""
    plain = text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode("utf-8")
    if len(plain) <= LONGEST_ERROR:
        return plain
    half = (LONGEST_ERROR - len(_CUT)) // 2
    return f"{plain[:half]}{_CUT}{plain[-half:]}"


def _summaries(error: BaseException, depth: int) -> list[str]:
    lines = [f"{'  ' * depth}{_summary(error)}"]
    if isinstance(error, BaseExceptionGroup) and depth < 5:
        for member in error.exceptions[:_GROUP_MEMBERS]:
            lines += _summaries(member, depth + 1)
        if len(error.exceptions) > _GROUP_MEMBERS:
            lines.append(f"{'  ' * (depth + 1)}and {len(error.exceptions) - _GROUP_MEMBERS} more")
    return lines


def _summary(error: BaseException) -> str:
    try:
        message = str(error)
    except Exception as unprintable:  # noqa: BLE001 - a handler's own __str__ may fail; that must not cost the worker its settlement
        message = f"(its message cannot be had: {type(unprintable).__name__})"
    name = type(error).__qualname__
    return f"{name}: {message}" if message else name


def _frames(trace: TracebackType | None) -> list[str]:
    # The path, line and function; never the source line, which may hold a literal that is a secret.
    found = [(frame.f_code.co_filename, line, frame.f_code.co_name) for frame, line in traceback.walk_tb(trace)]
    inner = [place for place in found if f"{_HERE}worker" not in place[0] and not place[0].endswith(_TASKS)]
    return [f"  at {path}:{line} in {name}" for path, line, name in (inner or found)[-_FRAMES:]]


_HERE: Final = __file__.rpartition("worker")[0]
_TASKS: Final = f"{_HERE}tasks.py"
