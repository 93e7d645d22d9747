"""Reads the items of a bulk call in chunks and encodes them, from any iterable (async too) of payloads or new jobs.

Used by `verb`. Memory holds one encoded chunk at a time, and the event loop gets its turn between slices of a few
milliseconds.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
)
from itertools import islice
from types import TracebackType
from typing import Any, Final, Self

import msgspec
import orjson

from backfill._native import encode_items
from backfill.client.prepare import JobShape, check_size, shape_of, with_defaults
from backfill.errors import InvalidJobError, InvalidPayloadError
from backfill.jobs import JobSpec, NewJob
from backfill.payloads import OPTIONS, checked, encode, encode_other
from backfill.tasks import Task

Row = tuple[JobShape, bytes]
CHUNK_ROWS: Final = 2000
CHUNK_BYTES: Final = 1_000_000
_SLICE_ROWS: Final = range(1, 513)
_SLICE_SECONDS: Final = 0.002
_SLICE_BYTES: Final = CHUNK_BYTES // 8
_SHAPES: Final = 256


class ItemError(Exception):
    """An item is bad, or could not be read; `__cause__` says why."""

    def __init__(self, index: int) -> None:
        self.index = index
        super().__init__(index)


class Encoder:
    """Turns the items of one call into rows: each has the job's shape and its payload's bytes.

    Args:
        task: the task of the items that are payloads; None if all items must be NewJobs.
        defaults: settings that apply where an item's own spec gives none.
    """

    def __init__(self, task: Task[Any, Any] | str | None, defaults: JobSpec) -> None:
        self._defaults = defaults
        self._accept: Callable[[Any], object] | None = None
        self._shape: JobShape | None = None
        self._task: Task[Any, Any] | None = None
        if isinstance(task, Task):
            if task.queue_of is None:
                self._accept = task.given
                whole = with_defaults(defaults, task.defaults)
                self._shape = shape_of(task.identifier, whole, task.default_max_attempts, task)
            else:
                self._task = task
        elif task is not None:
            self._shape = shape_of(NewJob(task).task, defaults, None)
        self._shapes: dict[tuple[Any, ...], tuple[JobSpec, JobSpec, JobShape]] = {}

    def encode(self, items: Iterator[Any], rows: list[Row]) -> None:
        """Add items as rows; if an item is bad, the rows of the items before it stay.

        Raises:
            InvalidJobError: a payload has no task, is not of the task's class, or cannot be written as JSON.
        """
        if self._task is not None:  # the task chooses a queue for each payload
            items = map(self._job, items)
        encode_items(
            items, rows, NewJob, self._shape, self._accept, self._shape_of, orjson.dumps, encode_other, OPTIONS, _kept
        )

    def _job(self, item: Any) -> NewJob[Any]:
        assert self._task is not None  # noqa: S101 - the caller has checked it
        return item if isinstance(item, NewJob) else self._task.job(item)

    def _shape_of(self, job: object) -> JobShape:
        """Return the shape of a NewJob; the native code asks for it where a job's spec differs from the one before."""
        if not isinstance(job, NewJob):
            limit = "a NewJob, such as task.job(payload); payloads need their task: enqueue_bulk(task, payloads)"
            raise InvalidPayloadError("jobs", job, limit)
        key = id(job.spec), id(job.defaults), job.task, job.default_max_attempts, job.source
        found = self._shapes.get(key)  # a cached value holds its specs, so that no other object can have their ids
        if found is None:
            if len(self._shapes) >= _SHAPES:
                self._shapes.clear()
            whole = with_defaults(with_defaults(job.spec, self._defaults), job.defaults)
            shape = shape_of(job.task, whole, job.default_max_attempts, job.source)
            found = self._shapes[key] = job.spec, job.defaults, shape
        return found[2]


def _kept(payload: object, encoded: bytes | None) -> bytes:
    """Return the JSON of a payload that the native code could not accept by itself.

    The payload is long or was refused, or it may contain NaN or NUL.
    """
    text = encode(payload) if encoded is None else checked(payload, encoded)
    check_size(text)
    return text


class Reader:
    """Reads the items of one call.

    Attributes:
        count: how many items were read.
        exhausted: whether there are no more items.
    """

    def __init__(self, items: Iterable[Any] | AsyncIterable[Any], encoder: Encoder) -> None:
        self.count = 0
        self.exhausted = False
        self._encode = encoder.encode
        self._turn = 0.0
        self._step = 8
        self._items: Iterator[Any] | None = None
        self._async_items: AsyncIterator[Any] | None = None
        if isinstance(items, AsyncIterable):
            self._async_items = aiter(items)
        else:
            self._items = iter(items)

    @property
    def is_async(self) -> bool:
        """Whether the items come from an async iterable, which may make other calls between them."""
        return self._async_items is not None

    async def __aenter__(self) -> Self:
        """Return the reader; nothing is read yet."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close a generator, so that it releases what it holds when the call ends, and not when it is collected."""
        try:
            if isinstance(self._async_items, AsyncGenerator):
                await self._async_items.aclose()
            elif isinstance(self._items, Generator):
                self._items.close()
        except Exception as late:
            if error is None:
                raise
            error.add_note(f"closing the iterable raised {type(late).__name__}")  # the first error is the one to raise

    async def read(self, most: int = CHUNK_ROWS) -> list[Row]:
        """Read the next rows: at most `most`, and about a megabyte of payloads; none if the items are at their end.

        Raises:
            ItemError: an item was bad, or the iterable raised; the error's index is the item's position.
        """
        rows: list[Row] = []
        size = 0
        while len(rows) < most and size < CHUNK_BYTES and not self.exhausted:
            begun = time.monotonic()
            added = await self._slice(rows, min(self._step, most - len(rows)))
            size += added
            ended = time.monotonic()
            if added > _SLICE_BYTES or ended - begun > _SLICE_SECONDS / 2:
                self._step = max(self._step // 2, _SLICE_ROWS.start)
            elif ended - begun < _SLICE_SECONDS / 8:
                self._step = min(self._step * 2, _SLICE_ROWS.stop - 1)
            if ended > self._turn:
                await asyncio.sleep(0)
                self._turn = time.monotonic() + _SLICE_SECONDS
        return rows

    async def _slice(self, rows: list[Row], most: int) -> int:
        before = len(rows)
        try:
            if self._items is not None:
                self._encode(islice(self._items, most), rows)
            elif self._async_items is not None:
                await self._async_slice(rows, most, self._async_items)
        except Exception as error:
            raise ItemError(self.count + len(rows) - before) from error
        added = len(rows) - before
        size = sum([len(payload) for _, payload in rows[before:]])
        if size > CHUNK_BYTES:  # it may hold a payload over the limit, which a task's codec does not check
            self._check_sizes(rows[before:])
        self.count += added
        self.exhausted = added < most
        return size

    def _check_sizes(self, rows: list[Row]) -> None:
        for place, (_, payload) in enumerate(rows):
            try:
                check_size(payload)
            except InvalidPayloadError as error:
                raise ItemError(self.count + place) from error

    async def _async_slice(self, rows: list[Row], most: int, items: AsyncIterator[Any]) -> None:
        for _ in range(most):
            try:
                item = await anext(items)
            except StopAsyncIteration:
                return
            self._encode(iter((item,)), rows)


def check_items(field: str, items: object, *, task: object) -> None:
    """Refuse one job, or something that cannot be iterated over, in the place of many; the error names the right call.

    Raises:
        InvalidPayloadError: `items` is refused; its value is not shown, since it may be a payload.
    """
    if isinstance(items, NewJob):
        raise InvalidJobError(field, items, "an iterable of jobs; for one, client.enqueue(job)")
    if isinstance(items, Task):
        raise InvalidJobError(
            field, items, "an iterable of jobs, or a task and its payloads: enqueue_bulk(task, payloads)"
        )
    one = isinstance(items, (Mapping, str, bytes, bytearray, memoryview, msgspec.Struct)) or (
        not isinstance(items, type) and (dataclasses.is_dataclass(items) or hasattr(items, "__pydantic_fields__"))
    )
    if one:
        call = "client.enqueue(task, payload)" if task is None else f"client.enqueue({_shown(task)}, payload)"
        raise InvalidPayloadError(field, items, f"an iterable of them, or an async one; for one job, {call}")
    if not isinstance(items, (Iterable, AsyncIterable)) and not hasattr(items, "__getitem__"):
        raise InvalidPayloadError(field, items, "an iterable, or an async one")


def _shown(task: object) -> str:
    return repr(task.identifier) if isinstance(task, Task) else repr(task)
