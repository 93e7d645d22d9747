"""The statements about the places where workers run: what they show, and what others look for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from backfill.client.verbs.asked import Verb
from backfill.storage.results import first, rows


def show_place(worker: str, place: Mapping[str, Any] | None) -> Verb[bool]:
    """Have a worker's row say where its processes run; the answer is false if the worker was given up."""
    said = None if place is None else _json(place)
    return Verb("show_place", (worker, said), lambda found: first(found).flag("shown"))


def find_places(process: Mapping[str, Any]) -> Verb[dict[str, str]]:
    """Find the workers whose rows name a process as theirs; the answer is their places' JSON by their ids."""
    return Verb(
        "find_places",
        (_json(process),),
        lambda found: {row.word("id"): row.word("place") for row in rows(found)},
    )


def _json(value: Mapping[str, Any]) -> str:
    return orjson.dumps(dict(value)).decode()
