"""The main loop of a child: reads calls from a pipe, runs them in the main thread, and sends what came of them.

A second thread waits at the control pipe: for words about the running call, and for the pipe's end, which is the
parent's end too. So the pipe of calls has one reader, and a call costs no change of threads.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import select
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any, Final, NoReturn, cast

from backfill.worker.processes import frames
from backfill.worker.processes.handler import ChildHandler, Terminated
from backfill.worker.processes.resident import resident_bytes

_LOST: Final = 71
"""The exit code of a child that cannot talk to its worker any more."""
_PARENT_LOOK_SECONDS: Final = 0.5
_PIECE: Final = 1 << 16
_LARGE_PIECE: Final = 1 << 20


class _Call:
    """The `ChildCall` of one call."""

    __slots__ = ("_inside", "data", "ended", "number", "stopped")

    def __init__(self, inside: Inside, number: int, data: bytes) -> None:
        self._inside = inside
        self.number = number
        self.data = data
        self.ended = False
        self.stopped: str | None = None

    @property
    def should_stop(self) -> bool:
        return self.stop_reason is not None

    @property
    def stop_reason(self) -> str | None:
        return self._inside.stop_reason(self.number)

    def send(self, kind: str, data: bytes) -> None:
        self._inside.send(frames.MESSAGE, self, data, kind.encode())


class Inside:
    """One child, from within.

    Args:
        calls: the descriptor of the pipe by which calls come.
        answers: the descriptor of the pipe by which messages and outcomes go.
        control: the descriptor of the pipe that tells about the running call.
        parent: the parent's process, where the kernel does not end this process with it; else None.
    """

    def __init__(self, calls: int, answers: int, control: int, parent: int | None) -> None:
        self._calls = calls
        self._answers = answers
        self._control = control
        self._parent = parent
        self._identities = {end: _identity(end) for end in (calls, answers, control)}
        self._reader = frames.Reader()
        self._sending = threading.Lock()
        self._torn = False
        self._forked = False
        self._handling = False
        self._number = 0
        self._stopped: tuple[int, str] = (-1, "")
        self._terminated = -1
        self._main = threading.get_ident()

    def serve(self, path: str) -> None:
        """Run calls until there are no more."""
        self._prepare_signals()
        os.register_at_fork(after_in_child=self._leave_to_parent)
        threading.Thread(target=self._watch, name="backfill-parent", daemon=True).start()
        first = self._receive()
        if first is None:
            return
        limits_memory = first.number == 1
        try:
            handler = _made(path, first.data)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the parent says it
            self._write(frames.NOT_READY, 0, frames.pack_texts(_text(traceback.format_exception, error)))
            return
        del first
        self._write(frames.READY, 0, b"")
        try:
            while (received := self._receive()) is not None:
                call = _Call(self, received.number, received.data)
                del received
                if not self._run(handler, call, limits_memory=limits_memory):
                    break
        finally:
            with contextlib.suppress(Terminated):
                handler.close()

    def stop_reason(self, number: int) -> str | None:
        """Why a call should stop; None where nobody said so."""
        stopped, reason = self._stopped
        return reason if stopped == number else None

    def send(self, kind: int, call: _Call, data: bytes, name: bytes = b"", rss: int = 0) -> None:
        """Send a frame of a call that has not ended; nothing where it has.

        A call that is being ended still sends messages, as its `finally` may say something, but no outcome any more.
        """
        if call.ended or self._forked or (self._terminated == call.number and kind != frames.MESSAGE):
            return
        self._write(kind, call.number, data, name, rss, call)

    def _run(self, handler: ChildHandler, call: _Call, *, limits_memory: bool) -> bool:
        """Run one call, and say whether another one may follow."""
        self._number = call.number
        if self._terminated == call.number:
            return False
        kind, data = self._outcome(handler, call)
        if self._forked:
            _leave(0 if kind == frames.RETURNED else 1, data if kind == frames.RAISED else b"")
        if self._terminated == call.number:
            return False
        rss = resident_bytes() if limits_memory else 0
        try:
            self.send(kind, call, data, rss=rss)
        except ValueError as error:
            self.send(frames.RAISED, call, frames.pack_texts("ValueError", str(error), ""), rss=rss)
        call.ended = True
        return True

    def _outcome(self, handler: ChildHandler, call: _Call) -> tuple[int, bytes]:
        try:
            try:
                self._handling = True
                if self._terminated == call.number:  # said after the look before, so that no signal raises it
                    raise Terminated
                data = handler.run(call)
            finally:
                self._handling = False
            if not isinstance(data, bytes):
                raise TypeError(f"the handler's side returned {type(data).__name__}: bytes")
            return frames.RETURNED, data
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is the call's outcome
            self._handling = False
            return frames.RAISED, frames.pack_texts(
                type(error).__qualname__, _text(str, error), _text(traceback.format_exception, error)
            )

    def _write(
        self, kind: int, number: int, data: bytes, name: bytes = b"", rss: int = 0, call: _Call | None = None
    ) -> None:
        head = frames.header(kind, number, len(data), name, rss)
        with self._sending:
            if call is not None and call.ended:
                return
            if self._torn and self._terminated == number:
                return  # the end of the call broke the frame off, so that nothing can follow it
            if self._torn or self._lost(self._answers):
                _lose("the handler has closed or torn the connection of this child to its worker")
            self._torn = True  # an exception of a signal handler may leave a frame half written
            try:
                _write_all(self._answers, head + data if len(data) < _PIECE else head)
                if len(data) >= _PIECE:
                    _write_all(self._answers, data)
            except OSError as error:
                _lose(f"the connection of this child to its worker is gone: {error}")
            self._torn = False

    def _receive(self) -> frames.Frame | None:
        """The next frame; None where no more come. Nothing comes after a frame before it is answered."""
        while piece := os.read(self._calls, _LARGE_PIECE if self._reader.missing > _PIECE else _PIECE):
            if found := self._reader.feed(piece):
                return None if found[0].kind == frames.END else found[0]
        return None

    def _watch(self) -> None:
        """Hear what the parent says about the running call, and end this process at the pipe's end."""
        buffer = bytearray()
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        while True:
            if self._parent is not None:
                while not poll.poll(_PARENT_LOOK_SECONDS * 1000):
                    if os.getppid() != self._parent:
                        os._exit(_LOST)
            if self._lost(self._control):
                return  # the handler closed it; what is left to hear is its parent's end, which the kernel tells
            piece = os.read(self._control, 65536)
            if not piece:
                os._exit(_LOST)
            buffer += piece
            for kind, number, text in frames.read_controls(buffer):
                if kind == frames.STOP:
                    self._stopped = (number, text)
                else:
                    self._terminated = number
                    signal.pthread_kill(self._main, signal.SIGTERM)

    def _prepare_signals(self) -> None:
        """Ignore SIGINT and SIGTERM, but for the SIGTERM by which `_watch` ends a call.

        Functions rather than SIG_IGN, which the programs that handlers start would inherit.
        """
        self._end_call = _Once(self)
        signal.signal(signal.SIGINT, _ignore)
        signal.signal(signal.SIGTERM, self._end_call)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})

    def interrupt(self) -> bool:
        """Whether the call that runs in this moment is to be ended."""
        return self._handling and self._terminated == self._number

    def _lost(self, end: int) -> bool:
        """Whether the handler has closed a descriptor of ours; its number may be another file's now."""
        return _identity(end) != self._identities[end]

    def _leave_to_parent(self) -> None:
        """In a process that a handler has forked: let go of the pipes, so that it can neither use nor hold them."""
        self._forked = True
        for end in self._identities:
            if not self._lost(end):
                os.close(end)
        with contextlib.suppress(ValueError):
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


class _Once:
    """The handler of SIGTERM: raises `Terminated` once in a call that is to be ended."""

    def __init__(self, inside: Inside) -> None:
        self._inside = inside
        self._raised = False

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        if not self._raised and self._inside.interrupt():
            self._raised = True
            raise Terminated


def _ignore(number: int, frame: FrameType | None) -> None:
    """Handle a signal by doing nothing."""


def _made(path: str, setup: bytes) -> ChildHandler:
    module, _, name = path.partition(":")
    factory: Any = importlib.import_module(module)
    for part in name.split("."):
        factory = getattr(factory, part)
    return cast("Callable[[bytes], ChildHandler]", factory)(setup)


def _write_all(end: int, data: bytes) -> None:
    written = os.write(end, data)
    while written < len(data):  # a signal has come
        with memoryview(data) as view, view[written:] as rest:
            written += os.write(end, rest)


def _identity(descriptor: int) -> tuple[int, int]:
    try:
        found = os.fstat(descriptor)
    except OSError:
        return -1, -1
    return found.st_dev, found.st_ino


def _text(make: Callable[[BaseException], Any], error: BaseException) -> str:
    """A text about an exception, whose own code may fail."""
    try:
        return "".join(make(error))
    except BaseException as broken:  # noqa: BLE001 - see above
        return f"<{type(error).__qualname__} cannot be shown: {type(broken).__qualname__}>"


def _lose(why: str) -> NoReturn:
    _leave(_LOST, frames.pack_texts(f"backfill: {why}; the child ends"))


def _leave(code: int, texts: bytes) -> NoReturn:
    """End at once, with what was printed written out, and without the end of the interpreter."""
    with contextlib.suppress(BaseException):
        if texts:
            sys.stderr.write(frames.unpack_texts(texts)[-1] + "\n")
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)
