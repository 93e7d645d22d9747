"""The client: what producers hold. Its verbs are a module each; here they are put together.

connect (session, manner): its life and its connections · lent: the clients that a worker makes · enqueue: one job ·
bulk: many · manage: jobs that are there · dead_letters: jobs that are not tried again · ends: how jobs finished ·
counters: how attempts ended · recovery: what dead workers held · held_queues: queues that wait for one job ·
cleanup: what others left behind · presets: the common cases by name · prepare: what all of them send, without I/O ·
execute: one way to send it.
"""

from __future__ import annotations

from backfill.client.bulk.presets import enqueue_bulk, enqueue_bulk_with_retries
from backfill.client.bulk.verb import BulkVerb
from backfill.client.cleanup import CleanupVerbs
from backfill.client.counters import CounterVerbs
from backfill.client.ends.verbs import EndVerbs
from backfill.client.enqueue import EnqueueVerb
from backfill.client.manage import ManageVerbs
from backfill.client.presets import (
    enqueue_critical,
    enqueue_emergency,
    enqueue_fast,
    enqueue_fast_with_retries,
    enqueue_serial,
)

__all__ = [
    "BackfillClient",
    "enqueue_bulk",
    "enqueue_bulk_with_retries",
    "enqueue_critical",
    "enqueue_emergency",
    "enqueue_fast",
    "enqueue_fast_with_retries",
    "enqueue_serial",
]


class BackfillClient(EnqueueVerb, BulkVerb, ManageVerbs, CleanupVerbs, EndVerbs, CounterVerbs):
    """A producer's way to the queue: enqueue jobs, and manage those that are there.

    Making one does no I/O and needs no event loop, so a client may live at module level. The first verb connects and
    checks the schema; `async with client`, or `open()` and `close()`, say when instead. After `close()` verbs raise
    `ClientClosedError` until it is opened again, on the same event loop or another. A client works on one loop at a
    time; in a forked child it opens connections of its own. Any number of tasks may use it at once.

    `async with client` may be entered by many tasks at once, and within itself: the outermost exit, the last one,
    closes the client, whether or not `open()` was called too. `close()` closes it for all at once. The client that
    handlers have (`ctx.client`) is the worker's: neither closes it.

    Args:
        dsn: a connection string, or a callable (async too) that is asked for one at each new connection, for passwords
            that expire. Without it, and without a pool, DATABASE_URL is read when the client opens.
        schema: the queue's schema, 1 to 63 bytes.
        pool: a psycopg pool to use instead of one of its own. It must be open when the client opens, is never closed by
            it, and its connections may be set up in any way; they come back as they were.
        migrate: whether opening brings the schema up to date; else a missing or outdated one is an error.
        min_size: connections kept at rest, from 0.
        max_size: connections at most, from 1; calls beyond wait for one, 30 s at most. `result` and `enqueue_bulk` may
            have one more each while they are under way.

    Raises:
        ConfigurationError: an argument that cannot be used; it is named.
    """
