"""The Python files of a project, and its crontabs: which there are, and which have changed between two looks.

What is not the project's own code is passed over: virtual environments, installed packages, `node_modules`, the data of
PostgreSQL, and whatever is hidden. So are the files that editors write beside the one that is edited.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from backfill.errors import ConfigurationError

MOST_FOLDERS: Final = 10_000
"""How many folders a project may have. More are a sign that the command was started in a wrong folder."""
_SUFFIX: Final = ".py"
_NOT_OURS: Final = frozenset({"node_modules", "__pycache__", "site-packages"})
_MARKS: Final = frozenset({"pyvenv.cfg", "conda-meta", "PG_VERSION"})
"""A folder that has one of these is a virtual environment, or holds the data of a PostgreSQL."""
_EDITORS: Final = (".", "#", "flycheck_", "flymake_")
"""The names of files that editors write for a moment begin so, and those of hidden folders."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What tells that a file has changed. Its access and its rights are no part of it."""

    modified: int
    size: int
    inode: int


@dataclass(frozen=True, slots=True)
class Look:
    """The folders and the Python files of a project at one moment."""

    folders: frozenset[str]
    files: dict[str, Mark]


class Project:
    """The folders whose Python files are watched.

    Args:
        roots: the topmost folders.
        apart: folders below them that are passed over.
        besides: files that are watched beside them, wherever they are and whatever they are called.

    Raises:
        ConfigurationError: one of the topmost folders does not exist.
    """

    def __init__(self, roots: Sequence[Path], apart: Sequence[Path] = (), besides: Sequence[Path] = ()) -> None:
        self.roots = [root.absolute() for root in roots]
        self._besides = [str(file.absolute()) for file in besides]
        self._apart = {os.path.realpath(folder) for folder in apart}
        for root in self.roots:
            if not root.is_dir():
                raise ConfigurationError(f"--watch {str(root)!r}: there is no such folder")

    def first_look(self) -> Look:
        """Look for the first time.

        Raises:
            ConfigurationError: there are too many folders.
        """
        look = self.look()
        if len(look.folders) > MOST_FOLDERS:
            raise ConfigurationError(
                f"there are more than {MOST_FOLDERS} folders below {', '.join(map(str, self.roots))}: run the command "
                "in your project's folder, or name the folders of its code by --watch"
            )
        return look

    def look(self) -> Look:
        """Look at all folders; what vanishes meanwhile or cannot be read is passed over."""
        folders = set[str]()
        files = dict[str, Mark]()
        waiting = [str(root) for root in self.roots]
        roots = frozenset(waiting)
        while waiting and len(folders) <= MOST_FOLDERS:
            folder = waiting.pop()
            if folder in folders:  # one root may lie below another
                continue
            try:
                with os.scandir(folder) as entries:
                    found = list(entries)
            except OSError:
                continue
            if folder not in roots and any(entry.name in _MARKS for entry in found):
                continue
            folders.add(folder)
            for entry in found:
                try:
                    self._sort(entry, waiting, files)
                except OSError:
                    continue
        for file in self._besides:
            with suppress(OSError):
                files[file] = _mark_of(os.stat(file))
        return Look(frozenset(folders), files)

    def name(self, path: str) -> str:
        """The name by which people know a file: below its topmost folder, if there is one such folder only."""
        return os.path.relpath(path, self.roots[0]) if len(self.roots) == 1 else path

    def _sort(self, entry: os.DirEntry[str], waiting: list[str], files: dict[str, Mark]) -> None:
        """Put an entry of a folder to the folders that are to be looked at, or to the files, or to neither."""
        if entry.name.startswith(_EDITORS):
            return
        if entry.is_dir(follow_symlinks=False):
            if entry.name not in _NOT_OURS and os.path.realpath(entry.path) not in self._apart:
                waiting.append(entry.path)
        elif entry.name.endswith(_SUFFIX) and entry.is_file():
            files[entry.path] = _mark_of(entry.stat())


def _mark_of(status: os.stat_result) -> Mark:
    return Mark(status.st_mtime_ns, status.st_size, status.st_ino)


def differences(before: Look, after: Look) -> list[str]:
    """The files that are new, gone or other than they were, in the order of their paths."""
    paths = before.files.keys() | after.files.keys()
    return sorted(path for path in paths if before.files.get(path) != after.files.get(path))
