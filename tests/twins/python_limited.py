"""The Python twin of native/src/limited.rs."""

from __future__ import annotations

import json
from typing import Any


class Number(str):
    """A number or a boolean as it is written in JSON."""


def limit_value(payload: bytes, path: str) -> str | None:
    """What a JSON text has at a path: a text that is not empty, or a number or a boolean as it is written."""
    found: Any = json.loads(payload, parse_int=Number, parse_float=Number)
    for name in path.split("."):
        if not isinstance(found, dict) or name not in found:
            return None
        found = found[name]
    if isinstance(found, bool):
        return json.dumps(found)
    if isinstance(found, Number):
        return str(found)
    if not isinstance(found, str) or not found:
        return None
    try:
        found.encode()
    except UnicodeEncodeError:
        return None
    return found
