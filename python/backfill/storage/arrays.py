"""Arrays in PostgreSQL's text format, for parameters of statements that are not packed in binary format."""

from __future__ import annotations

from collections.abc import Iterable


def text_array(values: Iterable[str | None]) -> str:
    """The text of an array of texts."""
    return "{" + ",".join(["NULL" if value is None else _quoted(value) for value in values]) + "}"


def encoded_array(values: Iterable[bytes]) -> bytes:
    """The text of an array of texts, where these are encoded already; the array is in the same encoding."""
    quoted = [value.replace(b"\\", b"\\\\").replace(b'"', b'\\"') for value in values]
    return b'{"' + b'","'.join(quoted) + b'"}' if quoted else b"{}"


def number_array(values: Iterable[float | None]) -> str:
    """The text of an array of numbers."""
    return "{" + ",".join(["NULL" if value is None else str(value) for value in values]) + "}"


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
