"""Flask: an extension that gives each application a synchronous client.

    queue = Backfill()

    def create_app() -> Flask:
        app = Flask(__name__)
        queue.init_app(app)
        ...

    @blueprint.post("/orders")
    def order() -> ...:
        queue.client.enqueue(ship.job(order))

The module needs Flask, which the extra `flask` installs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from backfill.contrib.extras import missing
from backfill.errors import ConfigurationError
from backfill.hooks import Plugin
from backfill.sync import Client

try:
    from flask import Flask, current_app
except ModuleNotFoundError as error:
    raise missing(error, "flask") from error

__all__ = ["Backfill"]

_NAME: Final = "backfill"
"""The name under which `app.extensions` has an application's client."""
_DSN_KEYS: Final = ("BACKFILL_DSN", "DATABASE_URL")
"""The keys of an application's config that may have the DSN; the first that is set counts."""
_OPTIONS: Final = {
    "BACKFILL_SCHEMA": "schema",
    "BACKFILL_MIN_SIZE": "min_size",
    "BACKFILL_MAX_SIZE": "max_size",
}
"""Other keys of the config, and the client's arguments that they give."""


class Backfill:
    """An extension of Flask: `Backfill(app)`, or `queue = Backfill()` and then `queue.init_app(app)` in a factory.

    Each application has one client in each process. It connects at its first use, also after a server has forked, so
    the extension may be set up before or after the fork (gunicorn with and without `--preload`), and no hooks of the
    server are needed. Any number of threads may use the client at once.

    The application's config says where the queue is:

    - `BACKFILL_DSN`, or else `DATABASE_URL`: a connection string, or a callable that gives one. Where the config has
      neither, the client reads the environment's DATABASE_URL when it connects.
    - `BACKFILL_SCHEMA`: the queue's schema, 1 to 63 bytes.
    - `BACKFILL_MIN_SIZE`, `BACKFILL_MAX_SIZE`: how many connections each process keeps while they are not in use, from
      0, and has at most, from 1. More threads than that wait for one.

    Args:
        app: the application; without it, `init_app` is called later.
        plugins: plugins of the clients, whose interceptors are asked before a job is added.

    Raises:
        ConfigurationError: a value of the config cannot be used; the error names it.
    """

    def __init__(self, app: Flask | None = None, *, plugins: Iterable[Plugin] = ()) -> None:
        self._plugins = tuple(plugins)
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Make the application's client from its config. This does no I/O.

        Args:
            app: the application, whose config is complete. Changes of the config after this call are not seen.

        Raises:
            ConfigurationError: a value of the config cannot be used, or the application has a client already.
        """
        if _NAME in app.extensions:
            raise ConfigurationError(f"init_app: the application {app.name!r} has a client already; call it once")
        options: dict[str, Any] = {
            argument: app.config[key] for key, argument in _OPTIONS.items() if app.config.get(key) is not None
        }
        dsn = next((app.config[key] for key in _DSN_KEYS if app.config.get(key) is not None), None)
        try:
            client = Client(dsn, plugins=self._plugins, **options)
        except ConfigurationError as error:
            names = ", ".join((*_DSN_KEYS, *_OPTIONS))
            raise ConfigurationError(f"the config of {app.name!r} ({names}): {error}") from error
        app.extensions[_NAME] = client

    @property
    def client(self) -> Client:
        """The client of the current application.

        Raises:
            RuntimeError: there is no current application: use it within a request, or `with app.app_context()`.
            ConfigurationError: `init_app` was not called with the current application.
        """
        client = current_app.extensions.get(_NAME)
        if not isinstance(client, Client):
            raise ConfigurationError(f"the application {current_app.name!r} has no client: call init_app with it first")
        return client
