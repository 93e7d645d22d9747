"""How a child process ended, in words, and the exceptions by which a call hears that its child is of no use."""

from __future__ import annotations

import signal

from backfill.errors import BackfillError
from backfill.rebuilt import Rebuilt


class ChildDied(Rebuilt, BackfillError):  # noqa: N818 - a child that died is what happened, to one call only
    """The child process that ran a call ended before the call did.

    Attributes:
        reason: what happened, such as "was killed by signal 11 (SIGSEGV)" or "ended with exit code 3".
        signal: the number of the signal that killed the child; None where it ended by itself.
        exit_code: its exit code; None where a signal killed it.
    """

    _arguments = ("reason", "signal", "exit_code")

    def __init__(self, reason: str, signal: int | None = None, exit_code: int | None = None) -> None:
        self.reason = reason
        self.signal = signal
        self.exit_code = exit_code
        super().__init__(f"the child process that ran the handler {reason}")


class ChildNotStarted(BackfillError):  # noqa: N818 - as above
    """No child process could be started for a call, or it did not become ready; the message says why."""


class ChildFailed(Rebuilt, BackfillError):  # noqa: N818 - as above
    """The child's own code raised where it should have returned bytes; the child itself lives on.

    Attributes:
        kind: the qualified name of the exception's class.
        text: the exception's text.
        traceback: its traceback as text.
    """

    _arguments = ("kind", "text", "traceback")

    def __init__(self, kind: str, text: str, traceback: str) -> None:
        self.kind = kind
        self.text = text
        self.traceback = traceback
        super().__init__(f"{kind}: {text}" if text else kind)


def described(returncode: int) -> str:
    """How a process ended, in words.

    Args:
        returncode: as `subprocess` gives it: the exit code, or the number of the signal that killed it, negated.
    """
    if returncode >= 0:
        return f"ended with exit code {returncode}"
    try:
        name = signal.Signals(-returncode).name
    except ValueError:  # a real-time signal has no name
        return f"was killed by signal {-returncode}"
    hint = "; the system does that where memory is short" if -returncode == signal.SIGKILL else ""
    return f"was killed by signal {-returncode} ({name}{hint})"
