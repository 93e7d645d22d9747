"""backfill: a durable, prioritised job queue on PostgreSQL for Python, in Graphile Worker's schema.

The public names, nothing else.
"""

from backfill.client import (
    BackfillClient,
    enqueue_bulk,
    enqueue_bulk_with_retries,
    enqueue_critical,
    enqueue_emergency,
    enqueue_fast,
    enqueue_fast_with_retries,
    enqueue_serial,
)
from backfill.errors import (
    BackfillError,
    BulkEnqueueError,
    ClientClosedError,
    ConfigurationError,
    DatabaseConnectionError,
    InvalidJobError,
    InvalidPayloadError,
    MigrationError,
    PayloadDecodeError,
    SchemaError,
    SchemaMissingError,
    SchemaVersionError,
    TaskDefinitionError,
)
from backfill.jobs import (
    BulkOutcome,
    EnqueueOutcome,
    EnqueueStatus,
    Job,
    JobKeyMode,
    JobSpec,
    NewJob,
    Priority,
    Queue,
)
from backfill.retry import RetryPolicy
from backfill.tasks import Task, TaskRegistry
from backfill.worker import QueueConfig, WorkerConfig, WorkerContext, WorkerRunner

__all__ = [
    "BackfillClient",
    "BackfillError",
    "BulkEnqueueError",
    "BulkOutcome",
    "ClientClosedError",
    "ConfigurationError",
    "DatabaseConnectionError",
    "EnqueueOutcome",
    "EnqueueStatus",
    "InvalidJobError",
    "InvalidPayloadError",
    "Job",
    "JobKeyMode",
    "JobSpec",
    "MigrationError",
    "NewJob",
    "PayloadDecodeError",
    "Priority",
    "Queue",
    "QueueConfig",
    "RetryPolicy",
    "SchemaError",
    "SchemaMissingError",
    "SchemaVersionError",
    "Task",
    "TaskDefinitionError",
    "TaskRegistry",
    "WorkerConfig",
    "WorkerContext",
    "WorkerRunner",
    "enqueue_bulk",
    "enqueue_bulk_with_retries",
    "enqueue_critical",
    "enqueue_emergency",
    "enqueue_fast",
    "enqueue_fast_with_retries",
    "enqueue_serial",
]
