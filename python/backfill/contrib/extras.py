"""Says what to install where a module of `contrib` is imported without the library that it is for."""

from __future__ import annotations


def missing(error: ModuleNotFoundError, extra: str) -> ModuleNotFoundError:
    """The error that a module raises in place of the one that it got for its library.

    Args:
        error: what Python raised.
        extra: the extra of this package that installs the library.
    """
    return ModuleNotFoundError(
        f'{error}: the extra {extra!r} installs it: pip install "backfill[{extra}]"', name=error.name, path=error.path
    )
