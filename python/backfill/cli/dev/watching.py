"""Watches the files of a project in a thread, and tells its event loop which of them have changed.

The package watchfiles (the extra `dev`) says at once that something has changed; a look at all files then says what.
A look once a second finds what no notification comes for, such as changes on network file systems.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self

from backfill.cli.dev.files import Look, Project, differences
from backfill.errors import ConfigurationError

MISSING_EXTRA: Final = "watchfiles is not installed: pip install 'backfill[dev]'"
LOOK_SECONDS: Final = 1.0
"""How often all files are looked at, if no notification comes."""
_QUIET_MILLISECONDS: Final = 50
"""Changes that follow each other as fast as this are one change."""
_BURST_MILLISECONDS: Final = 500
"""How long such changes may follow each other before they are told."""


def refuse_missing() -> None:
    """Refuse to go on if the extra is not installed.

    Raises:
        ConfigurationError: it is not; the error says how to install it.
    """
    try:
        import watchfiles  # noqa: F401 (only whether it is there)
    except ImportError:
        raise ConfigurationError(MISSING_EXTRA) from None


class Watcher:
    """Tells of changes from its start to its end.

    Args:
        project: what to watch.
        tell: called on the event loop with the paths that have changed, at least one.
        warn: called on the event loop with a text if the system has no notifications left.
    """

    def __init__(self, project: Project, tell: Callable[[list[str]], None], warn: Callable[[str], None]) -> None:
        self._project = project
        self._tell = tell
        self._warn = warn
        self._loop = asyncio.get_running_loop()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="backfill-dev-watch", daemon=True)
        self._look = Look(frozenset(), {})

    @property
    def files(self) -> int:
        """How many files are watched."""
        return len(self._look.files)

    async def __aenter__(self) -> Self:
        """Look for the first time, and watch from now on.

        Raises:
            ConfigurationError: there are too many folders.
        """
        self._look = await asyncio.to_thread(self._project.first_look)
        self._thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Watch no longer, and wait for the thread's end, which comes within moments."""
        self._stop.set()
        await asyncio.to_thread(self._thread.join)

    def _watch(self) -> None:
        """Watch until the end; what the thread runs."""
        while not self._stop.is_set():
            try:
                self._listen()
            except FileNotFoundError:  # a folder was removed before it was watched
                self._compare()
            except OSError as error:
                self._say(self._warn, f"the system sends no notifications of changed files ({error})")
                break
        while not self._stop.wait(LOOK_SECONDS):
            self._compare()

    def _listen(self) -> None:
        """Wait for notifications from all folders until there are other folders, and look after each."""
        from watchfiles import watch

        notifications = watch(
            *sorted(self._look.folders),
            recursive=False,  # else folders that are passed over would be watched too, with all that is below them
            watch_filter=self._matters,
            debounce=_BURST_MILLISECONDS,
            step=_QUIET_MILLISECONDS,
            rust_timeout=int(LOOK_SECONDS * 1000),
            yield_on_timeout=True,
            stop_event=self._stop,
            raise_interrupt=False,
            ignore_permission_denied=True,
        )
        for _ in notifications:
            folders = self._look.folders
            self._compare()
            if self._look.folders != folders:
                return

    def _matters(self, _change: Any, path: str) -> bool:
        """Whether a notification is about a Python file or a folder."""
        return path.endswith(".py") or path in self._look.folders or os.path.isdir(path)

    def _compare(self) -> None:
        """Look at all files, and tell which have changed since the last look."""
        before, self._look = self._look, self._project.look()
        changed = differences(before, self._look)
        if changed:
            self._say(self._tell, changed)

    def _say(self, to: Callable[[Any], None], what: object) -> None:
        """Call a function on the event loop, unless that is closed."""
        if not self._stop.is_set():
            self._loop.call_soon_threadsafe(to, what)
