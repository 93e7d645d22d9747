"""What a test leaves to the garbage collector fails it, and not a later test that happens to run when it is collected.

Python tells of a resource that nobody closed, of a coroutine that nobody awaited and of a task's exception that nobody
read only when it collects the object. So each test ends with a collection, and fails by what that finds.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from collections.abc import Generator, Iterator
from itertools import count

import pytest

_LOGGER = logging.getLogger("asyncio")
_FREEZE_EACH = 100
"""After so many tests what lives is left out of collections too: modules that tests import, and pytest's reports."""
_COLLECT_EACH = 20
"""After so many small tests is a collection; what one of them leaves fails the last of these."""
_numbers = count(1)
_TOLD_WHEN_COLLECTED = ("was never retrieved", "was destroyed but it is pending", "Unclosed", "unclosed")


class _Told(logging.Handler):
    """Keeps what asyncio logs when it finds an object that was dropped: it warns of some and only logs the others."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self._found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record's text, with its traceback."""
        if any(part in record.getMessage() for part in _TOLD_WHEN_COLLECTED):
            self._found.append(self.format(record))

    def take(self) -> list[str]:
        """What was kept since the last call."""
        found, self._found = self._found, []
        return found


_told = _Told()


@pytest.fixture(scope="session", autouse=True)
def _asyncio_is_heard() -> Iterator[None]:
    """While tests run, what asyncio logs of dropped objects is kept."""
    _LOGGER.addHandler(_told)
    yield
    _LOGGER.removeHandler(_told)


def pytest_collection_finish() -> None:
    """Leave what is there before the first test out of each collection, which makes them short."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Let the last collection, which is pytest's own, find all that was left out."""
    gc.unfreeze()


@pytest.hookimpl(wrapper=True, tryfirst=True)  # around caplog, which keeps what was logged until the teardown's end
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    """After a test's fixtures have ended: collect, and fail the test by what was left to the collector."""
    try:
        yield
    finally:
        _collect(item)


def _is_small(item: pytest.Item) -> bool:
    """Whether it is a check of a text or a value, of which there are thousands: no coroutine, and one of many cases."""
    function = getattr(item, "function", None)
    return not asyncio.iscoroutinefunction(function) and getattr(item, "callspec", None) is not None


def _collect(item: pytest.Item) -> None:
    if isinstance(item, pytest.Function):
        item.funcargs.clear()  # pytest itself drops them a moment later, when it is too late to fail this test
    for name in ("last_type", "last_value", "last_traceback", "last_exc"):
        sys.__dict__.pop(name, None)  # of a test that failed: it holds the test's variables
    number = next(_numbers)
    if number % _COLLECT_EACH == 0 or not _is_small(item):
        gc.collect()
    if number % _FREEZE_EACH == 0:
        gc.freeze()
    # Pytest keeps what was raised while objects were collected, and raises it here.
    item.config.pluginmanager.get_plugin("unraisableexception").pytest_runtest_teardown(item)
    told = _told.take()
    if told:
        pytest.fail("left to the garbage collector: " + "\n".join(told), pytrace=False)
