"""The synchronous client: the life of one, and its groups of verbs."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import Self

from backfill.client.connect import MOST_CONNECTIONS
from backfill.hooks import Plugin
from backfill.storage.statements import DEFAULT_SCHEMA
from backfill.storage.types import Dsn
from backfill.sync.life import SyncVerbs
from backfill.sync.types import SyncPool
from backfill.sync.verbs.attempts import AttemptVerbs
from backfill.sync.verbs.bulk import BulkVerb
from backfill.sync.verbs.cancel import CancelVerbs
from backfill.sync.verbs.cleanup import CleanupVerbs
from backfill.sync.verbs.control import ControlVerbs
from backfill.sync.verbs.counters import CounterVerbs
from backfill.sync.verbs.dead_letter_changes import DeadLetterVerbs
from backfill.sync.verbs.dead_letter_reading import DeadLetterReading
from backfill.sync.verbs.ends import EndVerbs
from backfill.sync.verbs.enqueue import EnqueueVerb
from backfill.sync.verbs.held_queues import HeldQueueVerbs
from backfill.sync.verbs.manage import ManageVerbs
from backfill.sync.verbs.progress import ProgressVerb
from backfill.sync.verbs.recovery import RecoveryVerbs
from backfill.sync.verbs.schedules import Schedules
from backfill.sync.verbs.why import WhyVerb


class Client(
    EnqueueVerb, BulkVerb, ManageVerbs, CancelVerbs, ControlVerbs, CleanupVerbs, DeadLetterVerbs, DeadLetterReading,
    RecoveryVerbs, HeldQueueVerbs, EndVerbs, CounterVerbs, AttemptVerbs, ProgressVerb, WhyVerb,
):  # fmt: skip
    """The object by which a program without an event loop uses the queue: the calls of `BackfillClient`, which block.

    Making a client does no I/O, so a client may be a module's variable. The first verb connects and checks the schema;
    to choose the time yourself, use `with client`, or `open()` and `close()`. After `close()`, verbs raise
    `ClientClosedError` until the client is opened again.

    Any number of threads may use a client at once, each of them on a connection of its own, and may enter `with client`
    at once; the blocks may be nested. The exit from the last block closes the client, whether or not `open()` was
    called too. `close()` closes the client for all its users at once.

    A client may be made, opened and used before a process forks, as servers do that load the program before they fork
    (gunicorn with `preload_app`, uWSGI). Each child makes connections of its own at its first use, and touches none of
    its parent's. A pool that is given as `pool` belongs to the process that opened it.

    Args:
        dsn: a connection string, or a callable (async too) that is asked for one at each new connection, for passwords
            that expire. If neither `dsn` nor `pool` is given, the client reads DATABASE_URL when it opens.
        schema: the queue's schema, 1 to 63 bytes.
        pool: a `psycopg_pool.ConnectionPool` to use instead of the client's own. It must be open when the client opens,
            and the client never closes it. Its connections may be set up in any way; the client returns them as they
            were.
        migrate: whether opening the client brings the schema up to date; if not, a missing or outdated schema is an
            error.
        min_size: how many connections are kept while they are not in use, from 0.
        max_size: the largest number of connections, from 1; further calls wait for a connection, 30 s at most. A long
            `enqueue_bulk` may have one more connection while it runs.
        plugins: objects with a method `register(hooks)`. Before the client adds a job, it asks the interceptors that
            they register for `BeforeJobSchedule`. These are coroutine functions: they run in an event loop that is made
            for the call. What they register for other events is for workers.

    Raises:
        ConfigurationError: an argument cannot be used; the error names it.
    """

    def __init__(
        self,
        dsn: Dsn | None = None,
        *,
        schema: str = DEFAULT_SCHEMA,
        pool: SyncPool | None = None,
        migrate: bool = False,
        min_size: int = 1,
        max_size: int = MOST_CONNECTIONS,
        plugins: Iterable[Plugin] = (),
    ) -> None:
        self._life = self._verbs = SyncVerbs(
            dsn, schema=schema, pool=pool, migrate=migrate, min_size=min_size, max_size=max_size, plugins=plugins
        )

    @classmethod
    def connect(
        cls,
        dsn: Dsn | None = None,
        *,
        schema: str = DEFAULT_SCHEMA,
        pool: SyncPool | None = None,
        migrate: bool = False,
        min_size: int = 1,
        max_size: int = MOST_CONNECTIONS,
        plugins: Iterable[Plugin] = (),
    ) -> Self:
        """Make a client with the same arguments as the class, and open it.

        The client may be entered, as in `with Client.connect(dsn) as client`, which also closes it at the block's end.

        Raises:
            DatabaseConnectionError: the server cannot be reached, or refuses the connection.
            ReadOnlyDatabaseError: the only server of the DSN takes no writes.
            SchemaMissingError: the schema does not exist, and `migrate` is not set.
            SchemaVersionError: the schema is too new or too old.
            ConfigurationError: an argument cannot be used, or neither `dsn` nor DATABASE_URL is set.
        """
        client = cls(
            dsn, schema=schema, pool=pool, migrate=migrate, min_size=min_size, max_size=max_size, plugins=plugins
        )
        client.open()
        return client

    @property
    def schema(self) -> str:
        """The schema whose queue this client works with."""
        return self._life.schema

    @property
    def pool(self) -> SyncPool:
        """The psycopg pool of this client: the one that it was given, or its own, which is there while it is open.

        It is for statements of yours on the same connections: `with client.pool.connection() as connection`. The
        connections of the client's own pool are in autocommit, so a transaction is a block `with
        connection.transaction()`; they write parameters as `$1`, and speak UTF-8. Leave these settings as they are. The
        client closes its own pool; do not close it yourself.

        While you hold a connection of it, calls of the client need another one. With `max_size=1` there is none, and
        such a call fails after half a minute; give it `connection=` then.

        Raises:
            ClientClosedError: the client makes its own pool when it opens, and it is not open in this process.
        """
        return self._life.sync_pool

    @property
    def is_open(self) -> bool:
        """Whether the client is connected in this process; a client opens itself at its first use."""
        return self._life.here.session is not None

    @property
    def schedules(self) -> Schedules:
        """The recurring items of the fleet: to list, add, change, pause, resume, trigger and remove them."""
        return Schedules(self._life.schedules)

    def open(self) -> None:
        """Connect and check the schema; do nothing if the client is open already; open a closed client again.

        The first verb does this by itself, so a call is only useful to find errors early.

        Raises:
            DatabaseConnectionError: the server cannot be reached, or refuses the connection.
            ReadOnlyDatabaseError: the only server of the DSN takes no writes.
            SchemaMissingError: the schema does not exist, and `migrate` is not set.
            SchemaVersionError: the schema is too new or too old.
            ConfigurationError: neither a DSN nor DATABASE_URL is set, or the connection string cannot be read.
        """
        self._life.opened(reopen=True)

    def close(self) -> None:
        """Close the client and its own pool in this process; a pool that was given to the client stays open.

        Calls under way keep their connections and finish; later calls raise `ClientClosedError` until `open()` is
        called. This closes the client for all its users, including those within `with`. It does no harm if the client
        is closed already.
        """
        self._life.closed_here()

    def __enter__(self) -> Self:
        """Open the client, if it is not open; any number of threads may be inside at once, and blocks may be nested."""
        self._life.opened(reopen=True, enter=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the client when nobody else is inside, whether or not `open()` was called too."""
        self._life.left()
