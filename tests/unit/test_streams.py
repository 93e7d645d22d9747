"""Streams that never wait for their readers: what is read is what was written, in order, as far as there was room."""

from __future__ import annotations

import fcntl
import io
import logging
import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backfill.cli.streams import ROOM, Patient, Whole

from plugins.waiting import Eventually

PIPE_SIZE = 4096


def small_pipe() -> tuple[int, int]:
    """A pipe with room for a page."""
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    return read, write


@given(steps=st.lists(st.one_of(st.binary(max_size=3 * PIPE_SIZE), st.integers(1, 2 * PIPE_SIZE)), max_size=20))
def test_what_is_read_is_what_was_written(steps: list[bytes | int]) -> None:
    """Whenever the reader reads, and however much, nothing is lost or changes places while there is room."""
    read, write = small_pipe()
    stream, written, seen = Patient(write, "stdout"), b"", b""
    try:
        for step in steps:
            if isinstance(step, bytes):
                assert stream.write(step) == len(step)
                written += step
            elif len(seen) < len(written):
                seen += os.read(read, step)
        while len(seen) < len(written):
            seen += os.read(read, ROOM)
        assert seen == written
    finally:
        stream.finish(0)
        stream.close()
        os.close(read)
        os.close(write)


async def test_what_there_is_no_room_for_is_dropped_and_counted(
    caplog: pytest.LogCaptureFixture, eventually: Eventually
) -> None:
    """The log says so as soon as somebody reads again; whole writes are dropped, so that lines stay whole."""
    caplog.set_level(logging.WARNING, "backfill")
    read, write = small_pipe()
    stream = Patient(write, "stderr")
    line = b"x" * 99_999 + b"\n"
    try:
        for _ in range(20):
            stream.write(line)
        with os.fdopen(read, "rb") as reader:
            lines = [reader.readline() for _ in range(11)]
            assert set(lines) == {line}
            [told] = await eventually(lambda: caplog.messages, bool)
            assert told == "900000 bytes of standard error were dropped: nobody had read them"
    finally:
        stream.finish(0)
        stream.close()
        os.close(write)


def test_a_reader_that_is_gone_is_no_error() -> None:
    """All that is written is dropped at once."""
    read, write = os.pipe()
    os.close(read)
    stream = Patient(write, "stdout")
    assert stream.write(b"to nobody") == 9
    stream.finish(0)
    stream.close()
    os.close(write)


class Interrupted(io.RawIOBase):
    """A stream whose writes take only so many bytes each; none where it says None.

    Args:
        takes: how many bytes the first writes take; the later ones take all.
    """

    def __init__(self, takes: list[int | None], number: int) -> None:
        self.seen = b""
        self._takes = iter(takes)
        self._number = number

    def fileno(self) -> int:
        """A descriptor that is always ready."""
        return self._number

    def write(self, data: Any, /) -> int | None:
        """Take a part of it."""
        take = next(self._takes, len(data))
        if take is not None:
            self.seen += bytes(data[:take])
        return None if take is None else min(take, len(data))


@given(content=st.binary(), takes=st.lists(st.one_of(st.none(), st.integers(0, 10)), max_size=20))
def test_a_write_that_is_interrupted_goes_on(content: bytes, takes: list[int | None]) -> None:
    """However little each of the system's writes takes, all is written once and in order."""
    with open(os.devnull, "wb") as ready:
        raw = Interrupted(takes, ready.fileno())
        assert Whole(raw).write(content) == len(content)
    assert raw.seen == content
