"""The Python twin of native/src/scan.rs."""

from __future__ import annotations

import math
from typing import Any

DEEPEST = 200


def odd_parts(value: object) -> list[Any] | None:
    """What is no plain JSON value within a value, or None where a number is not finite."""
    odd: list[Any] = []
    return odd if _scan(value, 0, odd) else None


def _scan(value: Any, depth: int, odd: list[Any]) -> bool:
    kind = type(value)
    if kind in (str, int, bool, type(None)):
        return True
    if kind is float:
        return math.isfinite(value)
    if depth < DEEPEST and kind is dict:
        for key, item in value.items():
            if type(key) is not str:
                odd.append(key)
            if not _scan(item, depth + 1, odd):
                return False
        return True
    if depth < DEEPEST and kind in (list, tuple):
        return all(_scan(item, depth + 1, odd) for item in value)
    odd.append(value)
    return True
