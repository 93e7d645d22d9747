"""The statement by which a worker shows the lanes that it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from backfill.client.verbs.asked import Verb


def show_lanes(worker: str, lanes: Sequence[Mapping[str, Any]]) -> Verb[None]:
    """Have a worker's row show its lanes as they are now."""
    return Verb("show_lanes", (worker, orjson.dumps(list(lanes)).decode()), lambda _: None)
