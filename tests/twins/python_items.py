"""The Python twin of native/src/items.rs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from twins.python_limited import limit_value


def encode_items(
    items: Iterator[Any],
    rows: list[tuple[Any, bytes]],
    new_job: type,
    shape: Any | None,
    accept: Callable[[Any], None] | None,
    shape_of: Callable[[Any], Any],
    dumps: Callable[[Any, Callable[[Any], Any], Any], bytes],
    other: Callable[[Any], Any],
    option: Any,
    keep: Callable[[Any, bytes | None], bytes],
) -> None:
    """Each item as its shape and its payload's JSON; every text is looked at again."""
    for item in items:
        if isinstance(item, new_job):
            own, payload = shape_of(item), item.payload
        else:
            if accept is not None:
                accept(item)
            own, payload = shape_of(item) if shape is None else shape, item
        if own.encode is not None:
            text = own.encode(payload)
        else:
            try:
                dumped = None if payload is None else dumps(payload, other, option)
            except Exception:
                dumped = None
            text = keep(payload, dumped if isinstance(dumped, bytes) else None)
        value = None if own.limit_by is None else limit_value(text, own.limit_by)
        rows.append((own if value is None else own.by_value.get(value) or own.for_value(value), text))
