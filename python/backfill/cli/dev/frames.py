"""Tracebacks as somebody who writes tasks wants to see them: with the frames of their own code only."""

from __future__ import annotations

import os
import site
import sysconfig
import traceback
from pathlib import Path
from typing import Final

_OURS: Final = str(Path(__file__).resolve().parents[2])


def shown(error: BaseException) -> str:
    """The traceback of an error and of the errors that led to it, without the frames of libraries and of Python.

    An error that was raised outside of the user's code keeps all its frames, since they are all there is.
    """
    whole = traceback.TracebackException.from_exception(error)
    _cut(whole, set())
    return "".join(whole.format()).rstrip("\n")


def is_users(filename: str) -> bool:
    """Whether a file is neither Python's, nor an installed package's, nor of this package."""
    if filename.startswith("<"):
        return False
    path = os.path.realpath(filename)
    parts = path.split(os.sep)
    if "site-packages" in parts or "dist-packages" in parts:
        return False
    return not any(path.startswith(folder + os.sep) for folder in _elsewhere())


def _cut(error: traceback.TracebackException | None, seen: set[int]) -> None:
    """Leave the user's frames, in this error and in those that belong to it."""
    if error is None or id(error) in seen:
        return
    seen.add(id(error))
    users = [frame for frame in error.stack if is_users(frame.filename)]
    if users or getattr(error, "filename", None):  # a syntax error names its file and line without a frame
        error.stack = traceback.StackSummary.from_list(users)
    for other in (error.__cause__, error.__context__, *(error.exceptions or ())):
        _cut(other, seen)


def _elsewhere() -> set[str]:
    """The folders of Python's own library, of installed packages and of this package."""
    paths = sysconfig.get_paths()
    folders = {paths["stdlib"], paths["platstdlib"], paths["purelib"], paths["platlib"], site.getusersitepackages()}
    return {os.path.realpath(folder) for folder in folders} | {_OURS}
