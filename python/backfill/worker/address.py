"""Reads the address of the health probes as it is written in settings and on the command line."""

from __future__ import annotations

from typing import Final

from backfill.errors import ConfigurationError

_LARGEST_PORT: Final = 65_535
_LONGEST_PORT: Final = 5


def parse_address(field: str, text: str) -> tuple[str, int]:
    """Host and port of `host:port`, `:port` (all addresses) or `[::1]:port`.

    Raises:
        ConfigurationError: the text is none of these; the message names the field.
    """
    host, colon, port = text.rpartition(":") if isinstance(text, str) and "\0" not in text else ("", "", "")
    number = int(port) if port.isascii() and port.isdigit() and len(port) <= _LONGEST_PORT else _LARGEST_PORT + 1
    if not colon or number > _LARGEST_PORT:
        raise ConfigurationError(f"{field} = {text!r}: expected host:port or :port, such as 127.0.0.1:8080")
    return host.removeprefix("[").removesuffix("]"), number
