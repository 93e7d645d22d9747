"""The settings of a job that its task's functions choose by the payload: its serial queue and its key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from backfill.checks import KEY_LIMIT, check_text
from backfill.errors import InvalidJobError, InvalidPayloadError, TaskDefinitionError
from backfill.specs import JobSpec, Queue

if TYPE_CHECKING:
    from backfill.task import Task


def chosen(task: Task[Any, Any], payload: Any, *, keyed: bool) -> JobSpec:
    """The settings of a task's job with the queue and the key that its functions choose for a payload.

    Args:
        task: the task.
        payload: the job's payload.
        keyed: whether the job has a key of its own, so that the task's function for the key is not called.

    Raises:
        InvalidJobError: the function for the queue returned neither a Queue nor None.
        InvalidPayloadError: the function for the key returned no key.
    """
    defaults = task.defaults
    if task.queue_of is not None:
        queue: object = _called(task.queue_of, payload, f"task {task.identifier!r} names as its queue")
        if queue is not None and not isinstance(queue, Queue):
            limit = f"a Queue or None, from the function that task {task.identifier!r} names as its queue"
            raise InvalidJobError("queue", queue, limit)
        defaults = defaults if queue is None else replace(defaults, queue=queue)
    if task.key_of is not None and not keyed:
        key: Any = _called(task.key_of, payload, f"task {task.identifier!r} names as key_of")
        try:
            check_text("job_key", key, KEY_LIMIT)
        except InvalidJobError as error:
            # The value is not shown: it comes from the payload, and may be the payload itself.
            limit = f"{error.limit}, from the function that task {task.identifier!r} names as key_of"
            raise InvalidPayloadError("job_key", key, limit) from None
        defaults = replace(defaults, job_key=key)
    return defaults


def check_key_of(task: str, key_of: object) -> None:
    """Refuse what is given as `key_of` and is no function.

    Raises:
        TaskDefinitionError: it cannot be called.
    """
    if key_of is not None and not callable(key_of):
        raise TaskDefinitionError(
            f"task {task!r}: key_of = {key_of!r}: expected a function that gets the payload and returns the job's key"
        )


def _called(function: Callable[[Any], Any], payload: Any, who: str) -> Any:
    try:
        return function(payload)
    except Exception as error:
        error.add_note(f"raised by the function that {who}")
        raise
