"""Which classes a worker may make objects of, from what a child process has sent, without running a program's code.

A worker has one event loop for all of its jobs. Code of a program's classes, such as an `__init__` that asks a
database, would hold it up, and would have its effect a second time. So only such classes are used here whose objects
are made by code of Python, of its library and of ours.
"""

from __future__ import annotations

import enum
import io
import pickle
import sys
from functools import lru_cache
from types import FunctionType
from typing import Any, Final

_OURS: Final = frozenset({*sys.stdlib_module_names, "backfill", "psycopg"}) - {"__main__"}
"""Packages whose code may run."""
_FUNCTIONS: Final = frozenset({("copyreg", "_reconstructor"), ("copyreg", "__newobj__"), ("builtins", "getattr")})
"""Functions by which the library's own classes are pickled."""
_MAKING: Final = ("__new__", "__setstate__", "__setattr__", "__reduce__", "__reduce_ex__")


class _Harmless(pickle.Unpickler):
    """Takes harmless classes only, from modules that this process has already: an import would hold up the loop."""

    def find_class(self, module: str, name: str) -> Any:
        """A class or function by its name."""
        if module not in sys.modules:
            raise pickle.UnpicklingError(f"module {module!r} is not imported here")
        found = super().find_class(module, name)
        if (module, name) not in _FUNCTIONS and not (isinstance(found, type) and is_harmless(found)):
            raise pickle.UnpicklingError(f"{module}.{name} may run code of the program")
        return found


def loaded(data: bytes) -> Any:
    """What was pickled; None where this process cannot have it, or would run a program's code for it."""
    try:
        return _Harmless(io.BytesIO(data)).load()
    except BaseException:  # noqa: BLE001 - rubbish may fail in any way
        return None


def is_ours(kind: type) -> bool:
    """Whether a class is one of Python, of its library or of ours."""
    return str(kind.__module__).partition(".")[0] in _OURS


@lru_cache(maxsize=1024)
def is_harmless(kind: type) -> bool:
    """Whether objects of a class can be unpickled without a program's code."""
    if issubclass(kind, enum.Enum):  # its members are looked up
        return True
    if not is_ours(type(kind)):
        return False
    theirs = [base for base in kind.__mro__ if not is_ours(base)]
    if any(isinstance(vars(base).get(name), (FunctionType, staticmethod)) for base in theirs for name in _MAKING):
        return False
    is_called = kind.__reduce__ is not object.__reduce__ or kind.__reduce_ex__ is not object.__reduce_ex__
    return not (is_called and any("__init__" in vars(base) for base in theirs))


def made_bare(kind: type[BaseException], arguments: tuple[Any, ...], state: dict[str, Any]) -> BaseException:
    """An exception as it was, made by the `__new__` and the `__init__` of Python's own class only.

    Args:
        kind: its class.
        arguments: its `args`.
        state: what stands in its `__dict__`.
    """
    base = builtin_of(kind)
    error = base.__new__(kind, *arguments)
    base.__init__(error, *arguments)
    error.args = arguments
    vars(error).update(state)
    return error


def builtin_of(kind: type[BaseException]) -> type[BaseException]:
    """The nearest class of Python's own that an exception class is below."""
    return next(base for base in kind.__mro__ if base.__module__ == "builtins")
