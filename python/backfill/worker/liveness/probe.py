"""Probes for orchestrators: answers over HTTP, and a file that is fresh while the worker is live.

A thread answers, so that there is an answer also while a handler holds the event loop. It serves `GET /live` and
`GET /ready` (200 or 503), and `GET /health` (always 200), each with the same JSON, and `GET /metrics` for Prometheus.
This module knows HTTP; `probe_server` knows sockets.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from backfill.errors import ConfigurationError
from backfill.metrics.prometheus import ABSENT, Page
from backfill.storage.until import in_own_thread
from backfill.worker.liveness.health import Health
from backfill.worker.liveness.probe_server import CONNECTION_SECONDS, LARGEST_REQUEST, ProbeServer, listen
from backfill.worker.service import Service, wait_for_event

logger = logging.getLogger(__name__)

FILE_SECONDS: Final = 1.0
_END_OF_HEAD: Final = re.compile(rb"\r?\n\r?\n")
_REQUEST_LINE: Final = re.compile(rb"([A-Z]{1,20}) (\S{1,2000}) HTTP/(\d\.\d)")
_ACCEPT: Final = re.compile(rb"^accept:[ \t]*([^\r\n]*)", re.IGNORECASE | re.MULTILINE)
_PATHS: Final = "expected /live, /ready, /health or /metrics"
_JSON: Final = "application/json"


class HttpProbe(Service):
    """Answers health probes over HTTP.

    Args:
        address: where to listen: host (empty: everywhere) and port (0: any that is free).
        health: returns the health; called from other threads.
        metrics: makes the page of metrics, in another thread; None where no library for it is installed.

    Attributes:
        port: the port on which it listens, once it is open.
    """

    def __init__(self, address: tuple[str, int], health: Callable[[], Health], metrics: Page | None = None) -> None:
        super().__init__("health probe")
        self._address = address
        self._metrics = metrics
        self._health = health
        self._server: ProbeServer | None = None
        self.port = 0

    def open(self) -> None:
        """Listen, before the worker claims anything.

        Raises:
            ConfigurationError: the address cannot be used.
        """
        try:
            listening = listen(self._address)
        except (OSError, UnicodeError, TypeError) as error:  # the latter two where a name cannot be a host's name
            host, port = self._address
            raise ConfigurationError(f"WorkerConfig.health_address = '{host}:{port}': cannot listen: {error}") from None
        self.port = listening.getsockname()[1]
        # It answers from now on, so that a worker whose start takes long is seen as not ready rather than as absent.
        self._server = ProbeServer(listening, lambda read: respond(read, self._health, self._metrics))
        self._server.start()

    def close(self) -> None:
        """Stop listening. Blocks for a moment."""
        server, self._server = self._server, None
        if server is not None:
            server.close()

    def _open(self) -> None:
        self.open()

    async def _close(self) -> None:
        await in_own_thread(self.close, timeout=2 * CONNECTION_SECONDS)

    async def _run(self) -> None:
        await self._stopping.wait()


class FileProbe(Service):
    """Writes a file every second while the worker is ready, and deletes it when the worker is not, and at the end.

    Args:
        path: the file; the time of its last change says how fresh it is.
        health: returns the health.
    """

    def __init__(self, path: Path, health: Callable[[], Health]) -> None:
        super().__init__("health file")
        self._path = path
        self._health = health
        self._failed = False

    async def _run(self) -> None:
        try:
            while True:
                self._write(self._health())
                if await wait_for_event(self._stopping, FILE_SECONDS):
                    return
        finally:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)

    def _write(self, health: Health) -> None:
        """Write the file beside its path and move it into place, so that readers always see the whole of it."""
        beside = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        try:
            if health.ready:
                beside.write_text(json.dumps(health.as_dict()) + "\n", encoding="utf-8")
                beside.replace(self._path)
            else:
                self._path.unlink(missing_ok=True)
        except OSError as error:
            if not self._failed:
                logger.error("the health file %s cannot be written: %s", self._path, error)
            self._failed = True
        else:
            self._failed = False


def respond(read: bytes, health: Callable[[], Health], metrics: Page | None = None) -> bytes | None:
    """The response to the part of a request that has come; None where its head is not complete.

    What follows the head is not looked at: a GET has no body, and every connection ends with its first answer.

    Args:
        read: the bytes that have come so far.
        health: returns the health.
        metrics: makes the page of metrics; None where no library for it is installed.
    """
    head = read.lstrip(b"\r\n")  # an empty line in front must be ignored (RFC 9112, 2.2)
    end = _END_OF_HEAD.search(head)
    if end is not None and end.start() <= LARGEST_REQUEST:
        return _answer(head[: end.start()], health, metrics)
    if head and not head[:1].isupper():  # no HTTP method begins like this; it may be TLS
        return _response(HTTPStatus.BAD_REQUEST, {"error": "expected HTTP, without TLS"})
    if len(read) > LARGEST_REQUEST:
        limit = f"expected at most {LARGEST_REQUEST:,} bytes"
        return _response(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, {"error": limit})
    return None


def _answer(head: bytes, health: Callable[[], Health], metrics: Page | None) -> bytes:
    """The response to a request whose head is complete."""
    line = _REQUEST_LINE.fullmatch(head.splitlines()[0])
    if line is None:
        return _response(HTTPStatus.BAD_REQUEST, {"error": "expected a line such as GET /live HTTP/1.1"})
    method, target, version = line.groups()
    if version not in {b"1.0", b"1.1"}:
        return _response(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, {"error": "expected HTTP/1.1 or HTTP/1.0"})
    spoken = version.decode()
    if method not in {b"GET", b"HEAD"}:
        error = {"error": "expected GET or HEAD"}
        return _response(HTTPStatus.METHOD_NOT_ALLOWED, error, version=spoken, allow="GET, HEAD")
    path, asked = _path(target), "metrics"
    try:
        if path == "/metrics":
            return _metrics_response(head, metrics, version=spoken, with_body=method == b"GET")
        asked = "health"
        status, body = _status(path, health())
    except Exception:  # for example, the worker is just being closed; the client is told that it is not well
        logger.exception("the worker's %s cannot be told", asked)
        status, body = HTTPStatus.INTERNAL_SERVER_ERROR, {"error": f"the worker's {asked} cannot be told"}
    return _response(status, body, version=spoken, with_body=method == b"GET")


def _metrics_response(head: bytes, metrics: Page | None, *, version: str, with_body: bool) -> bytes:
    """The response to a request for the metrics, in the format that the client wants."""
    if metrics is None:
        return _response(HTTPStatus.NOT_FOUND, {"error": ABSENT}, version=version, with_body=with_body)
    accept = _ACCEPT.search(head)
    text, content_type = metrics("" if accept is None else accept[1].decode("latin-1"))
    return _response(HTTPStatus.OK, text, content_type, version=version, with_body=with_body)


def _path(target: bytes) -> str:
    """The path of a request's target; a proxy may send a whole URL as the target."""
    text = target.decode("ascii", "replace").partition("?")[0]
    if not text.startswith("/"):
        text = "/" + text.partition("://")[2].partition("/")[2]
    return text.rstrip("/")


def _status(path: str, now: Health) -> tuple[HTTPStatus, dict[str, Any]]:
    well = {"/live": now.live, "/ready": now.ready, "/health": True}.get(path)
    if well is None:
        return HTTPStatus.NOT_FOUND, {"error": _PATHS}
    return HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE, now.as_dict()


def _response(
    status: HTTPStatus,
    body: dict[str, Any] | bytes,
    content_type: str = _JSON,
    *,
    version: str = "1.1",
    with_body: bool = True,
    allow: str | None = None,
) -> bytes:
    text = body if isinstance(body, bytes) else json.dumps(body).encode() + b"\n"
    headers = {
        "Server": "backfill",
        "Date": formatdate(usegmt=True),
        "Content-Type": content_type,
        "Content-Length": str(len(text)),
        "Cache-Control": "no-store",
        "Connection": "close",
    }
    if allow is not None:
        headers["Allow"] = allow
    lines = [f"HTTP/{version} {status.value} {status.phrase}", *(f"{name}: {value}" for name, value in headers.items())]
    head = "\r\n".join([*lines, "", ""]).encode()
    return head + text if with_body else head
