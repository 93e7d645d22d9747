"""The statement by which a worker shows where its processes run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from backfill.client.verbs.asked import Verb
from backfill.storage.results import first


def show_place(worker: str, place: Mapping[str, Any] | None) -> Verb[bool]:
    """Have a worker's row say where its processes run; the answer is false if the worker was given up."""
    said = None if place is None else orjson.dumps(dict(place)).decode()
    return Verb("show_place", (worker, said), lambda found: first(found).flag("shown"))
