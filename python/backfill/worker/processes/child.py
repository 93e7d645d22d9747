"""One child process, as its pool sees it: it is given calls, watched until it ends, and ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Final

from backfill.worker.processes import frames
from backfill.worker.processes.calls import Call, OnMessage, Outcome
from backfill.worker.processes.deaths import ChildDied, ChildFailed, ChildNotStarted, described
from backfill.worker.processes.launch import Launched, setup_frame, unread_bytes

_PIECE: Final = 1 << 16
_LARGE_PIECE: Final = 1 << 20
_AFTER_CLOSING: Final = 1.0
_EXIT_SECONDS: Final = 5.0


class UnreadError(Exception):
    """The child ended before it had read the call, so that another child may be given it."""


class Child:
    """One child process.

    Args:
        launched: the process.
        setup: what its handler's factory is given.
        limits_memory: whether it tells its memory after each call.
        ended: called once, when it has ended and was waited for.
        by_thread: wait for its end in a thread, as where the system has no descriptors of processes.
    """

    def __init__(
        self,
        launched: Launched,
        setup: bytes,
        *,
        limits_memory: bool,
        ended: Callable[[Child], None],
        by_thread: bool = False,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._process = launched.process
        self._launched = launched
        self._calls = launched.calls
        self._answers = launched.answers
        self._ended = ended
        self._reader = frames.Reader()
        self._unsent = bytearray()
        self._reads = True
        self._takes_calls = True
        self._deaf = False
        self._broken = ""
        self._unread = False
        self._why: str | None = None
        self._future: asyncio.Future[Outcome] | None = None
        self._on_message: OnMessage = _no_message
        self._pidfd = -1
        self._killing: asyncio.TimerHandle | None = None
        self._number = 0
        self.pid = launched.process.pid
        self.started = launched.started
        self.jobs = 0
        """How many calls it was given."""
        self.ending = False
        """Whether it takes no calls any more."""
        self.released: asyncio.Future[None] | None = None
        """Set where somebody waits for the end of the call, in whichever way it comes."""
        self.ready: asyncio.Future[None] = self._loop.create_future()
        self.gone: asyncio.Future[str] = self._loop.create_future()
        """How it ended, in words, when it has been waited for."""
        self._loop.add_reader(self._answers, self._read)
        self._watch(by_thread=by_thread)
        self._write(setup_frame(setup, limits_memory=limits_memory))

    @property
    def usable(self) -> bool:
        """Whether it can be given a call: it is not to end, and its connection is whole."""
        return self._reads and not self.ending

    @property
    def in_call(self) -> bool:
        """Whether it runs a call."""
        return self._future is not None

    def begin(self, call: Call, on_message: OnMessage) -> asyncio.Future[Outcome]:
        """Give it a call. It must be ready, and run no other one."""
        self._number += 1
        self.jobs += 1
        self._on_message = on_message
        future = self._future = self._loop.create_future()
        if self.gone.done():
            self._future = None
            future.set_exception(UnreadError())
            return future
        head = frames.header(frames.CALL, self._number, len(call.data))
        if len(call.data) < _PIECE:
            self._write(head + call.data)
        else:
            self._write(head)
            self._write(call.data)
        return future

    def stop(self, reason: str) -> None:
        """Ask the running call to stop."""
        self._tell(frames.pack_control(frames.STOP, self._number, reason))

    def terminate(self, grace: float) -> None:
        """Raise `Terminated` in the running call, and kill the child where it has not ended after `grace` seconds."""
        self.ending = True
        self._tell(frames.pack_control(frames.TERMINATE, self._number))
        self._kill_after(grace, f"was ended: the call went on for {grace:g} seconds after it was told to end")

    def end(self, timeout: float) -> None:
        """Let an idle child end by itself, and kill it where it has not ended after `timeout` seconds."""
        self.ending = True
        if not self.gone.done() and self._takes_calls:
            self._write(frames.header(frames.END, 0, 0))
            self._stop_writing()
        self._kill_after(timeout, f"did not end within {timeout:g} seconds")

    def kill(self, why: str | None = None) -> None:
        """Kill the child with its process group.

        Args:
            why: what the running call's exception says instead of the signal's name.
        """
        self.ending = True
        if self.gone.done():
            return
        if self._why is None:
            self._why = why
        self._signal_group()
        with contextlib.suppress(OSError):
            os.kill(self.pid, signal.SIGKILL)

    def _kill_after(self, seconds: float, why: str) -> None:
        if self._killing is not None:
            self._killing.cancel()
        if not self.gone.done():
            self._killing = self._loop.call_later(seconds, self.kill, why)

    def _signal_group(self) -> None:
        """Kill what is left of its process group; it is not waited for yet, so its number is nobody else's."""
        with contextlib.suppress(OSError):
            os.killpg(self.pid, signal.SIGKILL)

    def _tell(self, frame: bytes) -> None:
        if self.gone.done():  # the descriptor is closed, and its number may be another one's now
            return
        with contextlib.suppress(OSError):  # it has just ended, or it does not read: then it is killed in the end
            os.write(self._launched.control, frame)

    def _write(self, data: bytes) -> None:
        if self._unsent:
            self._unsent += data
            return
        try:
            sent = os.write(self._calls, data)
        except BlockingIOError:
            sent = 0
        except OSError:  # its end is noticed elsewhere, and this was never read
            self._unread = True
            return
        if sent < len(data):
            self._unsent += memoryview(data)[sent:]
            self._loop.add_writer(self._calls, self._write_more)

    def _write_more(self) -> None:
        try:
            with memoryview(self._unsent) as view, view[:_LARGE_PIECE] as piece:
                sent = os.write(self._calls, piece)
        except BlockingIOError:
            return
        except OSError:
            self._unread = True
            self._unsent.clear()
        else:
            del self._unsent[:sent]
        if not self._unsent:
            self._loop.remove_writer(self._calls)

    def _stop_writing(self) -> None:
        """Close the pipe of calls; whether the child has left something of a call unread is known from now on."""
        if self._takes_calls:
            self._takes_calls = False
            if self._unsent:
                self._unread = True
                self._unsent.clear()
                self._loop.remove_writer(self._calls)
            self._launched.close_calls()

    def _read(self) -> bool:
        """Read what is there, once, so that other callbacks of the loop have their turn; whether there was anything."""
        try:
            piece = os.read(self._answers, _LARGE_PIECE if self._reader.missing > _PIECE else _PIECE)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            piece = b""
        if not piece:
            self._stop_reading()
            if not self.ending:  # a process that ends closes this first; how it ended is worth waiting for
                self._kill_after(_AFTER_CLOSING, "closed its connection to the worker")
            return False
        try:
            for frame in self._reader.feed(piece):
                self._take(frame)
        except frames.RubbishError:
            self._stop_reading()
            self.kill("sent something that is no message of a child")
            return False
        return True

    def _take(self, frame: frames.Frame) -> None:
        if frame.kind == frames.READY and not self.ready.done():
            self.ready.set_result(None)
        elif frame.kind == frames.NOT_READY and not self.ready.done():
            self._broken = "".join(frames.unpack_texts(frame.data)).rstrip()
            self.end(_EXIT_SECONDS)
        elif frame.number != self._number or (future := self._future) is None:
            raise frames.RubbishError
        elif frame.kind == frames.MESSAGE:
            self._pass_on(future, frame)
        elif frame.kind == frames.RETURNED:
            self._finish(future, Outcome(frame.data, frame.rss or None))
        elif frame.kind == frames.RAISED:
            kind, text, trace = frames.unpack_texts(frame.data)
            self._finish(future, ChildFailed(kind, text, trace))
        else:
            raise frames.RubbishError

    def _pass_on(self, future: asyncio.Future[Outcome], frame: frames.Frame) -> None:
        if self._deaf:
            return
        try:
            self._on_message(frame.name, frame.data)
        except Exception as error:  # noqa: BLE001 - it is the call's failure
            self._deaf = True
            if not future.done():
                future.set_exception(error)
            self.kill()

    def _finish(self, future: asyncio.Future[Outcome], outcome: Outcome | Exception) -> None:
        """The call has ended; whoever awaited it may have been cancelled meanwhile."""
        self._future = None
        self._on_message = _no_message
        if not future.done():
            if isinstance(outcome, Outcome):
                future.set_result(outcome)
            else:
                future.set_exception(outcome)
        if self.released is not None and not self.released.done():
            self.released.set_result(None)

    def _stop_reading(self) -> None:
        if self._reads:
            self._reads = False
            self._loop.remove_reader(self._answers)

    def _watch(self, *, by_thread: bool) -> None:
        """Have `_died` called on the loop when the process has ended."""
        if not by_thread and sys.platform == "linux":
            with contextlib.suppress(OSError):  # an old kernel, or no descriptor is left
                self._pidfd = os.pidfd_open(self.pid)
                self._loop.add_reader(self._pidfd, self._died)
                return
        thread = threading.Thread(target=self._wait, name=f"backfill-child-{self.pid}", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            self._process.kill()
            self._process.wait()
            self._let_go()
            raise ChildNotStarted(f"no thread could be started that waits for a child process: {error}") from error

    def _wait(self) -> None:
        if hasattr(os, "waitid"):  # not on macOS
            with contextlib.suppress(OSError):
                os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)  # so its number stays its own until `_died`
        else:
            self._process.wait()
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._died)

    def _died(self) -> None:
        """The process has ended: read what it still said, wait for it, and say so."""
        if self.gone.done():
            return
        was_ending, self.ending = self.ending, True
        while self._reads and self._read():
            pass
        if self._future is not None:
            self._signal_group()
            # What is left in the pipe can only be of this call, whose handler has not begun then.
            self._unread = self._unread or bool(self._unsent) or (self._takes_calls and unread_bytes(self._calls) > 0)
        code = self._process.wait()
        why = self._why if self._why is not None and code == -signal.SIGKILL else described(code)
        self._let_go()
        self.gone.set_result(why)
        if not self.ready.done():
            text = f"could not be made ready:\n{self._broken}" if self._broken else f"{why} before it was ready"
            self.ready.set_exception(ChildNotStarted(f"a child process {text}"))
        if (future := self._future) is not None:
            self._finish(future, self._loss(code, why))
        self.ending = was_ending
        self._ended(self)

    def _loss(self, code: int, why: str) -> Exception:
        if self._unread:
            return UnreadError()
        return ChildDied(why, -code if code < 0 else None, code if code >= 0 else None)

    def _let_go(self) -> None:
        """Close all descriptors."""
        if self._killing is not None:
            self._killing.cancel()
        self._stop_reading()
        self._stop_writing()
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
        self._launched.close()


def _no_message(kind: str, data: bytes) -> None:
    """No call runs that could have sent one."""
