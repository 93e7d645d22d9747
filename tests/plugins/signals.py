"""The programs that tests start get the default signals, however the tests themselves were started.

`nohup` makes a program ignore SIGHUP, and a shell makes its background jobs ignore SIGINT and SIGQUIT. A program
inherits what its parent ignores. A worker under test would then not hear the signals that its test sends.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

NUMBERS = (
    signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGALRM, signal.SIGCHLD, signal.SIGUSR1,
    signal.SIGUSR2,
)  # fmt: skip


def pytest_configure() -> None:
    """Replace each signal that is ignored by a handler that does nothing.

    A program that is started gets no handlers.
    """
    for number in NUMBERS:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, _do_nothing)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, NUMBERS)


@pytest.fixture(autouse=True)
def _signals_stay() -> Iterator[None]:
    """A test leaves the signals' handlers as it found them, and none blocked."""
    before = _handlers()
    yield
    assert _handlers() == before
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []).isdisjoint(NUMBERS)


def _handlers() -> dict[signal.Signals, object]:
    """Of all but SIGALRM, which pytest-timeout sets before a test and takes back where the test fails."""
    return {number: signal.getsignal(number) for number in NUMBERS if number is not signal.SIGALRM}


def _do_nothing(*_: object) -> None:
    """Ignore a signal, as the program that started the tests wants it."""
