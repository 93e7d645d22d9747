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
from backfill.client.prepare import JobShape, check_size, shape_of, with_defaults, with_flags
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
        self._given = task
        self._defaults = defaults
        self._accept: Callable[[Any], object] | None = None
        self._shape: JobShape | None = None
        self._chooses = isinstance(task, Task) and not (task.queue_of is None and task.key_of is None)
        self._carried: tuple[str, ...] = ()
        self._tasks: set[str] = set()
        if isinstance(task, Task):
            if not self._chooses:
                self._accept = task.given
                whole = with_defaults(defaults, task.defaults)
                self._shape = shape_of(task.identifier, whole, task.default_max_attempts, task)
        elif task is not None:
            self._shape = shape_of(NewJob(task).task, defaults, None)
        self._shapes: dict[tuple[Any, ...], tuple[JobSpec, JobSpec, tuple[JobSpec, JobShape]]] = {}

    @property
    def task(self) -> str | None:
        """The name of the call's task; None if the call names none."""
        return self._given.identifier if isinstance(self._given, Task) else self._given

    @property
    def only_task(self) -> str | None:
        """The name of the task of all jobs so far; None if they are of several, or if there are none."""
        names = self._tasks if self._shape is None else {*self._tasks, self._shape.task}
        return next(iter(names)) if len(names) == 1 else None

    def carry(self, flags: tuple[str, ...]) -> None:
        """Give all jobs these flags too; it is called before the first item is read."""
        self._carried = flags
        if self._shape is not None:
            self._shape = with_flags(self._shape, flags)

    def encode(self, items: Iterator[Any], rows: list[Row]) -> None:
        """Add items as rows; if an item is bad, the rows of the items before it stay.

        Raises:
            InvalidJobError: a payload has no task, is not of the task's class, or cannot be written as JSON.
        """
        if self._chooses:
            items = map(self.job, items)
        encode_items(
            items, rows, NewJob, self._shape, self._accept, self._shape_of, orjson.dumps, encode_other, OPTIONS, _kept
        )

    def job(self, item: Any) -> NewJob[Any]:
        """Return the job that an item is, or the job of the call's task that has the item as its payload.

        Raises:
            InvalidJobError: the call has no task for the payload, or the payload is not of the task's class.
        """
        if isinstance(item, NewJob):
            return item
        if self._given is None:
            limit = "a NewJob, such as task.job(payload); payloads need their task: enqueue_bulk(task, payloads)"
            raise InvalidPayloadError("jobs", item, limit)
        return self._given.job(item) if isinstance(self._given, Task) else NewJob(self._given, item)

    def settled(self, job: NewJob[Any]) -> tuple[JobSpec, JobShape]:
        """Return the settings of a job: as a spec, with all defaults in it, and as the shape that is written."""
        key = id(job.spec), id(job.defaults), job.task, job.default_max_attempts, job.source
        found = self._shapes.get(key)  # a cached value holds its specs, so that no other object can have their ids
        if found is None:
            if len(self._shapes) >= _SHAPES:
                self._shapes.clear()
            whole = with_defaults(with_defaults(job.spec, self._defaults), job.defaults)
            shape = with_flags(shape_of(job.task, whole, job.default_max_attempts, job.source), self._carried)
            self._tasks.add(job.task)
            found = self._shapes[key] = job.spec, job.defaults, (whole, shape)
        return found[2]

    def _shape_of(self, job: object) -> JobShape:
        """Return the shape of a NewJob; the native code asks for it where a job's spec differs from the one before."""
        return self.settled(job if isinstance(job, NewJob) else self.job(job))[1]


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
        count: how many items were read that are now rows.
        skipped: how many items were read and left out; only a reader that asks interceptors leaves items out.
        skipped_indexes: the positions of these items; None if nobody asked for them.
        exhausted: whether there are no more items.
    """

    def __init__(self, items: Iterable[Any] | AsyncIterable[Any], encoder: Encoder) -> None:
        self.count = 0
        self.skipped = 0
        self.skipped_indexes: list[int] | None = None
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
    def yields(self) -> bool:
        """Whether the caller's code may make other calls, and wait for them, between two items."""
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
            self.exhausted = not await self._fill(rows, most)
        except Exception as error:
            raise ItemError(self.count + self.skipped + len(rows) - before) from error
        added = len(rows) - before
        size = sum([len(payload) for _, payload in rows[before:]])
        if size > CHUNK_BYTES:  # it may hold a payload over the limit, which a task's codec does not check
            self._check_sizes(rows[before:])
        self.count += added
        return size

    async def _fill(self, rows: list[Row], most: int) -> bool:
        """Read at most so many items, add them as rows, and tell whether there may be more items."""
        before = len(rows)
        if self._items is not None:
            self._encode(islice(self._items, most), rows)
        elif self._async_items is not None:
            await self._async_fill(rows, most, self._async_items)
        return len(rows) - before == most

    def _check_sizes(self, rows: list[Row]) -> None:
        for place, (_, payload) in enumerate(rows):
            try:
                check_size(payload)
            except InvalidPayloadError as error:
                raise ItemError(self.count + place) from error

    async def _async_fill(self, rows: list[Row], most: int, items: AsyncIterator[Any]) -> None:
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
