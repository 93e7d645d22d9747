"""The client, by which producers use the queue; each group of its verbs is a module, and here they are combined.

connect (session, manner): the client's life and its connections · lent: the clients that a worker makes · scheduling:
asks plugins before a job is added · enqueue: adds one job · gathering: calls of it that go together · bulk: adds many
jobs · manage: jobs in the queue · cancel: ends jobs that wait or run · control: what operators say to the fleet ·
attempts: the attempts of a job · progress: how far jobs have come · schedules: recurring jobs, and what operators say
of them · schedule_table: what schedulers ask · why: what holds a job back · dead_letters: jobs that are not tried again
· ends: how jobs finished · counters: how attempts ended · recovery: what dead workers held · held_queues: queues that
wait for one job · cleanup: what others left behind · presets: the common cases by name · prepare: makes the parameters
of statements, without I/O · execute: runs statements.
"""

from __future__ import annotations

from backfill.client.attempts import AttemptVerbs
from backfill.client.bulk.presets import enqueue_bulk, enqueue_bulk_with_retries
from backfill.client.bulk.verb import BulkVerb
from backfill.client.cancel import CancelVerbs
from backfill.client.cleanup import CleanupVerbs
from backfill.client.control import ControlVerbs
from backfill.client.counters import CounterVerbs
from backfill.client.ends.verbs import EndVerbs
from backfill.client.enqueue import EnqueueVerb
from backfill.client.presets import (
    enqueue_critical,
    enqueue_emergency,
    enqueue_fast,
    enqueue_fast_with_retries,
    enqueue_serial,
)
from backfill.client.progress import ProgressVerb
from backfill.client.schedules import Schedules, ScheduleVerbs
from backfill.client.why import WhyVerb

__all__ = [
    "BackfillClient",
    "Schedules",
    "enqueue_bulk",
    "enqueue_bulk_with_retries",
    "enqueue_critical",
    "enqueue_emergency",
    "enqueue_fast",
    "enqueue_fast_with_retries",
    "enqueue_serial",
]


class BackfillClient(
    EnqueueVerb, BulkVerb, CancelVerbs, ControlVerbs, CleanupVerbs, EndVerbs, CounterVerbs, AttemptVerbs, ProgressVerb,
    ScheduleVerbs, WhyVerb,
):  # fmt: skip
    """The object by which a program uses the queue: it enqueues jobs and manages the jobs in the queue.

    Making a client does no I/O and needs no event loop, so a client may be a module's variable. The first verb connects
    and checks the schema; to choose the time yourself, use `async with client`, or `open()` and `close()`. After
    `close()`, verbs raise `ClientClosedError` until the client is opened again, on the same event loop or another. A
    client works on one loop at a time; in a forked child it opens connections of its own. Any number of tasks may use
    it at once.

    Many tasks may enter `async with client` at once, and the blocks may be nested: the exit from the last block closes
    the client, whether or not `open()` was called too. `close()` closes the client for all its users at once. The
    client that handlers get (`ctx.client`) belongs to the worker: neither way closes it.

    Args:
        dsn: a connection string, or a callable (async too) that is asked for one at each new connection, for passwords
            that expire. If neither `dsn` nor `pool` is given, the client reads DATABASE_URL when it opens.
        schema: the queue's schema, 1 to 63 bytes.
        pool: a psycopg pool to use instead of the client's own. It must be open when the client opens, and the client
            never closes it. Its connections may be set up in any way; the client returns them as they were.
        migrate: whether opening the client brings the schema up to date; if not, a missing or outdated schema is an
            error.
        min_size: how many connections are kept while they are not in use, from 0.
        max_size: the largest number of connections, from 1; further calls wait for a connection, 30 s at most. `result`
            and `enqueue_bulk` may each have one more connection while they run.
        plugins: objects with a method `register(hooks)`. Before the client adds a job, it asks the interceptors that
            they register for `BeforeJobSchedule`. What they register for other events is for workers.
        gather: whether calls of `enqueue` that are made while another one is on its way are written together. If not,
            each takes a round trip and a commit of its own.
        notify_every: the least time between two notifications of the workers, from 1 ms to 1 hour; None to notify them
            with each statement. The first job is told at once; jobs that follow within this time are told together at
            its end, and when the client closes. Jobs that are added in a caller's transaction are told with its commit.

    Raises:
        ConfigurationError: an argument cannot be used; the error names it.
    """
