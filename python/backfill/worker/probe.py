"""Probes for orchestrators: a small HTTP server in a thread, and a file that is fresh while the worker is live.

The server's thread answers also while a handler holds the event loop. It serves `GET /live` and `GET /ready` (200, or 503),
and `GET /health` (always 200), each with the same JSON.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Any, Final

from backfill.errors import ConfigurationError
from backfill.worker.health import WorkerHealth
from backfill.worker.service import Service, wait_for_event

logger = logging.getLogger(__name__)

FILE_SECONDS: Final = 1.0
_REQUEST_SECONDS: Final = 5.0


class HttpProbe(Service):
    """Answers over HTTP.

    Args:
        address: where to listen: host (empty: everywhere) and port (0: any that is free).
        health: how the worker is; called from other threads.

    Attributes:
        port: where it listens, once it is open.
    """

    def __init__(self, address: tuple[str, int], health: Callable[[], WorkerHealth]) -> None:
        super().__init__("health probe")
        self._address = address
        self._health = health
        self._server: ThreadingHTTPServer | None = None
        self.port = 0

    def open(self) -> None:
        """Listen, before the worker claims anything.

        Raises:
            ConfigurationError: the address cannot be had.
        """
        try:
            self._server = _listening(self._address, _handler(self._health))
        except (OSError, UnicodeError, TypeError) as error:  # the latter where a name can be no host's
            host, port = self._address
            raise ConfigurationError(f"WorkerConfig.health_address = '{host}:{port}': cannot listen: {error}") from None
        self.port = self._server.server_address[1]
        # Begun at once, so that a start that takes long is seen as not ready rather than as nobody there.
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="backfill-health", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Listen no more. Blocks for a moment."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
            self._thread.join(_REQUEST_SECONDS)

    async def _run(self) -> None:
        await self._stopping.wait()


class FileProbe(Service):
    """Writes a file again and again while the worker is ready; it is deleted when it is not, and at the end.

    Args:
        path: the file; its time of change says how fresh it is.
        health: how the worker is.
    """

    def __init__(self, path: Path, health: Callable[[], WorkerHealth]) -> None:
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

    def _write(self, health: WorkerHealth) -> None:
        """A few hundred bytes, moved into place whole."""
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


def _listening(address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> _Server:
    """A server of the address's family; of both where none is given and the system has both."""
    host, port = address
    if ":" in host:
        return _Server6(address, handler)
    if not host and socket.has_dualstack_ipv6():
        with contextlib.suppress(OSError):  # as where IPv6 is switched off
            return _Server6(("::", port), handler)
    return _Server(address, handler)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def server_bind(self) -> None:
        """Listen; the library would look up the host's name too, which nobody needs and which may take long."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "backfill", self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the library's signature
        """A client that went away, or spoke no HTTP, is nobody's business."""
        logger.debug("a health probe's request failed", exc_info=True)  # noqa: LOG014 (called within one)


class _Server6(_Server):
    address_family = socket.AF_INET6

    def server_bind(self) -> None:
        """Listen; at all addresses, those of IPv4 too."""
        if self.server_address[0] == "::":
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


def _handler(health: Callable[[], WorkerHealth]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = _REQUEST_SECONDS
        server_version = "backfill"
        sys_version = ""

        def do_GET(self) -> None:
            """Answer."""
            now = health()
            path = self.path.partition("?")[0].rstrip("/")
            well = {"/live": now.live, "/ready": now.ready, "/health": True}.get(path)
            if well is None:
                self._answer(HTTPStatus.NOT_FOUND, {"error": "expected /live, /ready or /health"})
            else:
                self._answer(HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE, now.as_dict())

        do_HEAD = do_GET  # noqa: N815 - the library's name

        def _answer(self, status: HTTPStatus, body: dict[str, Any]) -> None:
            text = json.dumps(body).encode() + b"\n"
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(text)

        def log_message(self, format: str, *arguments: Any) -> None:
            """What is asked every few seconds is worth no line."""
            logger.debug(format, *arguments)

    return Handler
