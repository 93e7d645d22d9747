"""The rows of a result to jobs, in plain Python: the twin of native/src/decode.rs."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from backfill.errors import PayloadDecodeError
from backfill.records import Job, flags_from_jsonb


def decode_rows(
    names: Sequence[bytes],
    rows: Sequence[Sequence[bytes | None]],
    identifiers: Mapping[int, str] | None = None,
    ordered: bool = False,
) -> list[Job]:
    """See `backfill._native.decode_rows`."""
    columns: dict[str, tuple[int, str, Callable[[str, bytes], Any]]] = {}
    for place, name in enumerate(names):
        text = name.decode("utf-8", "replace")
        if text in {"fits", "place", "ctid", "xmin"}:  # a claim's own
            continue
        if text not in _COLUMNS:
            raise PayloadDecodeError(f"column {text!r}: no job has it")
        columns[text] = (place, *_COLUMNS[text])  # of a column that comes twice the last one counts
    for row in rows:
        if len(row) != len(names):
            raise ValueError(f"row: {len(row)} values for {len(names)} columns")
    jobs = [_job(columns, row, identifiers or {}) for row in rows]
    return sorted(jobs, key=lambda job: (job.priority, job.run_at_micros, job.id)) if ordered else jobs


def _job(
    columns: Mapping[str, tuple[int, str, Callable[[str, bytes], Any]]],
    row: Sequence[bytes | None],
    identifiers: Mapping[int, str],
) -> Job:
    values: dict[str, Any] = {"id": 0}
    for name, (place, field, decode) in columns.items():
        raw = row[place]
        if raw is not None:
            values[field] = decode(name, raw)
    if "task_identifier" not in values:
        values["task_identifier"] = identifiers.get(values.get("task_id", 0), "")
    return Job(**values)


def _integer(size: int, code: str) -> Callable[[str, bytes], int]:
    def decode(name: str, raw: bytes) -> int:
        if len(raw) != size:
            raise PayloadDecodeError(f"column {name}: a value of {len(raw)} bytes, expected {size}")
        return int(struct.unpack(f"!{code}", raw)[0])

    return decode


def _text(_: str, raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


_INT2, _INT4, _INT8 = _integer(2, "h"), _integer(4, "i"), _integer(8, "q")
_COLUMNS: Final[dict[str, tuple[str, Callable[[str, bytes], Any]]]] = {
    "id": ("id", _INT8),
    "task_id": ("task_id", _INT4),
    "task_identifier": ("task_identifier", _text),
    "job_queue_id": ("job_queue_id", _INT4),
    "queue_name": ("queue_name", _text),
    "payload": ("payload_bytes", lambda _, raw: raw),
    "priority": ("priority", _INT2),
    "run_at": ("run_at_micros", _INT8),
    "attempts": ("attempts", _INT2),
    "max_attempts": ("max_attempts", _INT2),
    "last_error": ("last_error", _text),
    "created_at": ("created_at_micros", _INT8),
    "updated_at": ("updated_at_micros", _INT8),
    "key": ("key", _text),
    "locked_at": ("locked_at_micros", _INT8),
    "locked_by": ("locked_by", _text),
    "revision": ("revision", _INT4),
    "flags": ("flags", lambda _, raw: flags_from_jsonb(raw)),
}
