"""Makes the text of `last_error` from whatever a handler raised.

The exception itself is not kept, since its traceback would keep the handler's locals in memory.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, NamedTuple

from backfill.classify import UNKNOWN, classify_error_for_metrics
from backfill.said import message
from backfill.worker.execution.verdict import members_of

LONGEST_ERROR: Final = 8_000
LONGEST_MESSAGE: Final = 2_000
LONGEST_TRACEBACK: Final = 4_000
_LONGEST_TYPE: Final = 500
_FRAMES: Final = 12
_OUTERMOST: Final = 3
_GROUP_MEMBERS: Final = 10
_KINDS: Final = 5
_CUT: Final = " ... "


@dataclass(frozen=True, slots=True)
class Raised:
    """What the record of an attempt says about its error.

    Attributes:
        error_type: the dotted path of the error's class; None where it is left out.
        message: the error's message; for a group, the summaries of its members follow.
        traceback: where the error came from; None where it is left out.
        kind: what kind of trouble it tells of, as one of the nine words of `classify_error_for_metrics`.
    """

    error_type: str | None
    message: str
    traceback: str | None
    kind: str = field(default=UNKNOWN, compare=False)

    def with_text(self, text: str) -> Raised:
        """The same with another message and without what the database may refuse too."""
        known = self.error_type if self.error_type is not None and self.error_type.isascii() else None
        return Raised(known, cleansed(text, LONGEST_MESSAGE), None, self.kind)


class Description(NamedTuple):
    """An error as it is written to the database.

    Attributes:
        text: the whole of it, for the job's `last_error`.
        raised: the same in parts, for the record of the attempt.
    """

    text: str
    raised: Raised


def describe(error: BaseException) -> Description:
    """Type, message and a shortened traceback of an error, fit for PostgreSQL: no NUL, no lone surrogates.

    Below an exception group its first members are listed, and below a member that is a group, its members in turn.
    """
    summary, *members = _summaries(error, 0)
    places = frames_of(error)
    if isinstance(error, BaseExceptionGroup):
        places += _origins(error)
    cause = error.__cause__
    if cause is None and not error.__suppress_context__:
        cause = error.__context__
    if cause is not None:
        places.append(f"caused by {_summary(cause)}")
    said = summary.removeprefix(type(error).__qualname__).removeprefix(": ")
    raised = raised_as(error, "\n".join([said, *members]) if members else said, places)
    return Description(cleansed("\n".join([summary, *members, *places])), raised)


def described_as(said: str, error: BaseException | None = None) -> Description:
    """A failure in words of ours; an error that belongs to it follows them, where there is one."""
    if error is None:
        return Description(said, Raised(None, cleansed(said, LONGEST_MESSAGE), None))
    text, raised = describe(error)
    message = cleansed(f"{said}\n{raised.message}", LONGEST_MESSAGE)
    return Description(f"{said}\n{text}", Raised(raised.error_type, message, raised.traceback, raised.kind))


def raised_as(error: BaseException, text: str, places: list[str]) -> Raised:
    """What the record of an attempt says about an error of this class, with this message, from these places."""
    kind = type(error)
    return Raised(
        cleansed(f"{kind.__module__}.{kind.__qualname__}", _LONGEST_TYPE),
        cleansed(text, LONGEST_MESSAGE),
        cleansed("\n".join(places), LONGEST_TRACEBACK) or None,
        classify_error_for_metrics(error),
    )


def cleansed(text: str, longest: int = LONGEST_ERROR) -> str:
    """The text in a form that PostgreSQL can hold, its middle cut out where it is too long to be read."""
    plain = text.replace("\0", "\N{REPLACEMENT CHARACTER}")
    if not plain.isascii():
        plain = plain.encode("utf-8", "replace").decode("utf-8")
    if len(plain) <= longest:
        return plain
    half = (longest - len(_CUT)) // 2
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
    name, text = type(error).__qualname__, message(error)
    return f"{name}: {text}" if text else name


def frames_of(error: BaseException) -> list[str]:
    """Where an error came from: one line for each frame, the innermost last.

    The worker's own frames are left out, if there are others. Of many frames the outermost ones are told, which are the
    handler's, and the innermost ones, between which a library's may be left out.
    """
    places = [f"  at {path}:{line} in {name}" for path, line, name in _places(error.__traceback__)]
    return places if len(places) <= _FRAMES else [*places[:_OUTERMOST], *places[_OUTERMOST - _FRAMES :]]


def _places(trace: TracebackType | None) -> list[tuple[str, int, str]]:
    # The path, line and function; never the source line, which may hold a literal that is a secret.
    found = [(frame.f_code.co_filename, line, frame.f_code.co_name) for frame, line in traceback.walk_tb(trace)]
    ours = (f"{_HERE}worker", f"{_HERE}hooks")
    inner = [place for place in found if not place[0].startswith(ours) and place[0] not in _CALLERS]
    return inner or found


def _origins(group: BaseExceptionGroup[BaseException]) -> list[str]:
    """The last line for a group: what its members are and where they came from, each kind once, sorted by name.

    The table of dead letters takes an error's fingerprint from the last place in its text. A group's own last place is
    where the group was made, such as within `asyncio.TaskGroup`, which says nothing about what failed.
    """
    kinds = dict[tuple[str, str, str], int]()
    for member in members_of(group):
        path, line, name = (_places(member.__traceback__) or [("", 0, "")])[-1]
        kinds.setdefault((type(member).__qualname__, name, path), line)
    own = _places(group.__traceback__)
    if not kinds:
        return []
    told = [f"{name} ({kind})" if name else f"({kind})" for kind, name, _ in sorted(kinds)]
    if len(told) > _KINDS:
        told[_KINDS:] = ["and others"]
    places = [(path, line) for (_, _, path), line in sorted(kinds.items()) if path]
    path, line = (places or [(path, line) for path, line, _ in own[-1:]] or [("(a group that was not raised)", 0)])[0]
    return [f"  at {path}:{line} in {', '.join(told)}"]


_HERE: Final = __file__.rpartition("worker")[0]
_CALLERS: Final = {f"{_HERE}{name}.py" for name in ("middleware", "task", "wrapped")}
"""The files of ours through which the worker calls a handler."""
