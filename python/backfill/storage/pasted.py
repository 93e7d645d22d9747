"""Connection strings as people paste them.

They come from SQLAlchemy's settings, with quotes or line ends around them, or as an object. They are read where their
meaning is certain; libpq would refuse them with an error that does not say why.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Final, TypeGuard

from backfill.errors import ConfigurationError

_DRIVER: Final = re.compile(r"\A(postgres|postgresql)\+(\w+)://")
_HIDDEN: Final = re.compile(r"://[^/?#@]*:\*\*\*@")
_QUOTES: Final = "\"'`"


def pasted(field: str, dsn: object) -> str:
    """The connection string that somebody meant, as libpq reads it.

    Args:
        field: what the error names, such as `dsn`.
        dsn: a string; or a URL object of SQLAlchemy or pydantic.

    Returns:
        The string without whitespace and quotes around it, and without the name of a driver (`postgresql+psycopg://`).

    Raises:
        ConfigurationError: the DSN is neither, or its password was replaced by asterisks when it was printed.
    """
    text = _text_of(dsn)
    if text is None:
        raise ConfigurationError(
            f"{field}: expected a connection string or a callable, got {type(dsn).__name__}; a connection string is "
            "such as "
            "postgresql://user:password@host:5432/database"
        )
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in _QUOTES:
        text = text[1:-1].strip()
    text = _DRIVER.sub("postgresql://", text)
    if _HIDDEN.search(text):
        raise ConfigurationError(
            f"{field}: its password is ***, which is what SQLAlchemy prints in the place of a password: give the URL "
            "object "
            "itself, or url.render_as_string(hide_password=False)"
        )
    return text


def is_function(dsn: object) -> TypeGuard[Callable[[], str | Awaitable[str]]]:
    """Whether a DSN is a function that gives a connection string, and not itself one."""
    return callable(dsn) and _text_of(dsn) is None


def _text_of(dsn: object) -> str | None:
    if isinstance(dsn, str):
        return str(dsn)
    render = getattr(dsn, "render_as_string", None)  # SQLAlchemy's URL, whose str() hides the password
    if callable(render):
        return str(render(hide_password=False))
    whole = getattr(dsn, "unicode_string", None)  # pydantic's PostgresDsn
    return str(whole()) if callable(whole) else None
