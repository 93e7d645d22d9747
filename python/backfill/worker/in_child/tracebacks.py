"""Tracebacks that cross to another process: the places of one as plain values, and a traceback made of such places.

A traceback made here has the same files, lines and functions, so that messages and logs show it like any
other. It has no local variables.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from types import FunctionType, TracebackType
from typing import Any, Final, TypeAlias

Place: TypeAlias = tuple[str, int, str]
"""A file, a line in it and the function that the line belongs to."""

_FIRST: Final = 30
_LAST: Final = 70


def places_of(trace: TracebackType | None) -> list[Place]:
    """The places of a traceback, the outermost first; of a long one those in the middle are left out."""
    found = [(frame.f_code.co_filename, line, frame.f_code.co_name) for frame, line in traceback.walk_tb(trace)]
    return found if len(found) <= _FIRST + _LAST else [*found[:_FIRST], *found[-_LAST:]]


def traceback_of(places: Sequence[Place]) -> TracebackType | None:
    """A traceback with these places; None where there is none."""
    trace: TracebackType | None = None
    for path, line, name in reversed(places):
        code = _nothing.__code__.replace(co_filename=path, co_name=name, co_firstlineno=max(line, 1))
        made: Any = FunctionType(code, {"__name__": name})()
        # A negative instruction says that only the line is known, and not the columns.
        trace = TracebackType(trace, made.gi_frame, -1, max(line, 1))
    return trace


def _nothing() -> Iterator[None]:
    """Give a frame without running anything: the frame of a generator that nobody has started."""
    yield
