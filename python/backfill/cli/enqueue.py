"""`backfill enqueue`: add one job from the command line."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from backfill.cli.common import DsnOption, JsonOption, SchemaOption, duration, required_dsn, run_async
from backfill.cli.options import SCHEMA
from backfill.errors import InvalidJobError, InvalidPayloadError

if TYPE_CHECKING:
    from datetime import datetime

    from backfill.jobs import EnqueueOutcome, JobKeyMode


def command(
    task: Annotated[str, typer.Argument(metavar="TASK", hidden=True)],
    payload: Annotated[
        str,
        typer.Argument(metavar="JSON", hidden=True, show_default=False),
    ] = "{}",
    priority: Annotated[
        int | None, typer.Option("--priority", metavar="N", help="-32768 to 32767, lower first; 0 if not given.")
    ] = None,
    queue: Annotated[str | None, typer.Option("--queue", metavar="NAME", help="A serial queue.")] = None,
    delay: Annotated[
        str | None, typer.Option("--delay", metavar="TIME", help="Not before so long: 90s, 1h30m, 2d.")
    ] = None,
    run_at: Annotated[
        str | None, typer.Option("--run-at", metavar="ISO", help="Not before: 2030-01-31T12:00:00Z.")
    ] = None,
    max_attempts: Annotated[
        int | None,
        typer.Option("--max-attempts", metavar="N", help="All runs; 8 if not given, whatever the task says."),
    ] = None,
    key: Annotated[
        str | None, typer.Option("--key", metavar="KEY", help="A key that at most one waiting job has.")
    ] = None,
    key_mode: Annotated[
        str | None,
        typer.Option("--key-mode", metavar="MODE", help="replace, preserve_run_at or unsafe_dedupe."),
    ] = None,
    unique_for: Annotated[
        str | None,
        typer.Option("--unique-for", metavar="TIME", help="No second job of the key for so long: 90s, 1h30m, 2d."),
    ] = None,
    flag: Annotated[
        list[str] | None, typer.Option("--flag", metavar="FLAG", help="A flag of the job; may be repeated.")
    ] = None,
    as_json: JsonOption = False,
    dsn: DsnOption = None,
    schema: SchemaOption = None,
) -> None:
    """Add a job, and print its id and what became of it.

    TASK is the task's name. JSON is the payload: {} if not given, and - reads it from standard input.
    """
    from backfill.client import BackfillClient
    from backfill.client.prepare import shape_of
    from backfill.jobs import JobSpec, NewJob, Queue

    spec = JobSpec(
        priority=priority,
        queue=None if queue is None else Queue.serial(queue),
        delay=None if delay is None else duration(delay, "--delay"),
        run_at=_time(run_at),
        max_attempts=max_attempts,
        job_key=key,
        job_key_mode=cast("JobKeyMode | None", key_mode),  # JobSpec checks the word
        flags=flag or None,
        unique_for=None if unique_for is None else duration(unique_for, "--unique-for"),
    )
    shape_of(task, spec, None)  # bad input is refused here, before a connection is made
    data = _json(sys.stdin.read() if payload == "-" else payload)
    job: NewJob[Any] = NewJob(task, data, spec)
    database, name = required_dsn(dsn), SCHEMA.value(schema)

    async def add() -> EnqueueOutcome[Any]:
        async with BackfillClient(database, schema=name) as client:
            return await client.enqueue(job)

    _show(run_async(add), task, as_json=as_json)


def _show(outcome: EnqueueOutcome[Any], task: str, *, as_json: bool) -> None:
    job = outcome.job
    if not as_json:
        until = outcome.reserved_until
        reserved = "" if until is None else f", its key is reserved until {until.isoformat()}"
        typer.echo(f"{outcome.status}: job {outcome.id} ({task}){reserved}")
        return
    told: dict[str, object] = {"id": outcome.id, "status": str(outcome.status), "task": task}
    if outcome.in_queue:  # of a job that has ended no more is known than its id and its key
        told |= {
            "queue": job.queue_name,
            "priority": job.priority,
            "run_at": job.run_at.isoformat(),
            "max_attempts": job.max_attempts,
            "revision": outcome.revision,
        }
    told["key"] = job.key
    if outcome.reserved_until is not None:
        told |= {"reserved_until": outcome.reserved_until.isoformat(), "in_queue": outcome.in_queue}
    typer.echo(json.dumps(told))


def _json(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_number)
    except ValueError as error:
        raise InvalidPayloadError("payload", text, f"not JSON: {error}") from None


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _time(text: str | None) -> datetime | None:
    from datetime import datetime

    if text is None:
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise InvalidJobError("run_at", text, "an ISO 8601 time with its zone, such as 2030-01-31T12:00:00Z") from None
