"""Tasks: the decorator that turns a handler into a `Task`, and the registry that a worker runs.

Applications import this module first, so it reads no annotation and opens no connection until a job needs them.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from copy import copy
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from backfill.breakers import Breaker
from backfill.checks import IDENTIFIER_LIMIT, check_duration, check_text
from backfill.errors import ConfigurationError, InvalidJobError, TaskDefinitionError
from backfill.handlers import RunIn, exception_types
from backfill.hooks.registry import Plugin, checked_plugins, distinct
from backfill.jobs import UNSAID, JobSpec, Queue
from backfill.limits import Limit, Rate
from backfill.limits import checked as checked_limits
from backfill.middleware import (
    AsyncMiddleware,
    CallNext,
    Function,
    Returned,
    SyncMiddleware,
    checked,
    checked_list,
    refuse_synchronous,
)
from backfill.recurring import Recurring
from backfill.retry import RetryPolicy
from backfill.task import PayloadOf, Task
from backfill.task_decorator import TaskDecorator
from backfill.wrapped import wrapped

if TYPE_CHECKING:
    from backfill.client import BackfillClient
    from backfill.cron.declared import CrontabSource
    from backfill.worker.context import WorkerContext

__all__ = ["LONGEST_KEEP", "Lifespan", "PayloadOf", "Task", "TaskDecorator", "TaskRegistry"]

R = TypeVar("R")
D = TypeVar("D")

LONGEST_KEEP = timedelta(days=3650)
Lifespan = Callable[["BackfillClient"], AbstractAsyncContextManager[D]]


class TaskRegistry(Recurring, Generic[D]):
    """The tasks of a program, and what its workers set up once; `D` is the type that its lifespan yields.

    Args:
        lifespan: a function that takes the worker's client and returns an async context manager. Each worker process
            enters it once, on its loop; what it yields is every handler's `ctx.deps`.
        in_processes: whether each child process that runs handlers enters the lifespan too, once. Without it, handlers
            with `run_in="process"` have no `ctx.deps`.
        deps: the class of `ctx.deps`, for a registry that is included in another one with a lifespan. It tells type
            checkers which context the handlers take; a worker does not run such a registry by itself.
        plugins: plugins of the workers that run this registry, whose callbacks come before those of the worker's own
            plugins. They hear of all jobs of such a worker.
        crontab: recurring jobs that its workers declare: the text of a crontab, or `Schedule` objects. `cron` and
            `schedule` declare more.

    Attributes:
        plugins: the registry's plugins, with those of the registries that it includes; each object once.

    Raises:
        CrontabParseError: the crontab cannot be read.
        TaskDefinitionError: the lifespan is not such a function, `deps` is not a class, both are given, or
            `in_processes` is given without a lifespan.
        ConfigurationError: `plugins` holds something that is no plugin.
    """

    @overload
    def __init__(self: TaskRegistry[None], *, plugins: Iterable[Plugin] = (), crontab: CrontabSource = ()) -> None: ...
    @overload
    def __init__(
        self,
        *,
        lifespan: Lifespan[D],
        in_processes: bool = False,
        plugins: Iterable[Plugin] = (),
        crontab: CrontabSource = (),
    ) -> None: ...
    @overload
    def __init__(self, *, deps: type[D], plugins: Iterable[Plugin] = (), crontab: CrontabSource = ()) -> None: ...
    def __init__(
        self,
        *,
        lifespan: Lifespan[Any] | None = None,
        in_processes: bool = False,
        deps: type[Any] | None = None,
        plugins: Iterable[Plugin] = (),
        crontab: CrontabSource = (),
    ) -> None:
        super().__init__(crontab)
        if lifespan is not None and (not callable(lifespan) or inspect.isasyncgenfunction(lifespan)):
            raise TaskDefinitionError(
                f"lifespan = {lifespan!r}: expected a function that gives an async context manager, such as an async "
                "generator with @asynccontextmanager above it"
            )
        if deps is not None and (lifespan is not None or not isinstance(deps, type)):
            raise TaskDefinitionError(
                f"deps = {deps!r}: expected the class of ctx.deps, and only in a registry without a lifespan, which "
                "another registry includes"
            )
        if in_processes and lifespan is None:
            raise TaskDefinitionError("in_processes = True: it is about a lifespan, and this registry has none")
        self.lifespan = lifespan
        self.in_processes = in_processes
        self.deps = deps
        self.plugins = checked_plugins(plugins)
        self._tasks: dict[str, Task[Any, Any]] = {}
        self._names: dict[str, Task[Any, Any]] = {}
        self._middleware: list[Function] = []
        self._outer: dict[str, tuple[list[Function], ...]] = {}

    def task(
        self,
        identifier: str,
        *,
        retry: RetryPolicy | None = None,
        timeout: timedelta | None = None,
        no_retry: Iterable[type[BaseException]] = (),
        aliases: Iterable[str] = (),
        keep: timedelta | None = None,
        limit: int | Limit | None = None,
        rate: Rate | None = None,
        breaker: Breaker | None = None,
        run_in: RunIn | None = None,
        batch: bool = False,
        express: bool = False,
        middleware: Iterable[AsyncMiddleware[D] | SyncMiddleware[D]] = (),
        priority: int | None = None,
        queue: Queue | Callable[[Any], Queue | None] | None = None,
        max_attempts: int | None = None,
        delay: timedelta | None = None,
        key_of: Callable[[Any], str] | None = None,
        unique_for: timedelta | None = None,
    ) -> TaskDecorator[D]:
        """Register the decorated function as the handler of a task.

        Args:
            identifier: the task's name in the database, 1 to 128 characters.
            retry: the task's retry policy; a job's own policy goes before it.
            timeout: how long one attempt may run; a job's own timeout goes before it. When the time is over, an async
                handler is cancelled. A synchronous one is only asked to stop, by `ctx.should_stop`; if it returns, its
                job is completed.
            no_retry: exceptions after which no other attempt follows, their subclasses included. `PayloadDecodeError`
                stands for payloads that do not fit; otherwise these are retried, since an old worker may meet a payload
                of a new form.
            aliases: other names whose jobs this handler runs too.
            keep: how long the ends of the task's jobs are kept, over 0 and up to ten years. An end says how a job
                finished and what its handler returned, which must be JSON. `client.result` and `client.ends` need it;
                if not given, no ends are kept.
            limit: how many of its jobs run in the whole fleet at once: a number, or `Limit(4, by="tenant_id")` for as
                many for each value of a field of the payload.
            rate: how many of its jobs start in the whole fleet in a period, such as `Rate(100)` for 100 a second.
            breaker: when dead letters of the task pause it in the whole fleet; if not given, none do.
            run_in: where a synchronous handler runs: in a "thread", which is meant if nothing is given, or in a child
                "process", which can use a processor of its own and is ended when the time of an attempt is over. The
                handler of a process is a function of a module, which the child imports.
            batch: whether the payload is a list of items that can fail one by one: the handler takes a `list[T]` and
                may raise `BatchFailed(indexes, error)`, and the items that failed are tried again alone.
            express: whether a worker may run its jobs by the locks of their rows alone and delete those that complete
                in the same transaction. It is for short async handlers that bear a repetition beside themselves, and
                cannot stand beside `keep`, `run_in`, `limit`, `rate` and `batch`. Jobs with a key or in a serial queue
                run as those of any other task.
            middleware: functions that run around the handler, the first outermost, all within the registry's
                `middleware`. A synchronous one needs a synchronous handler.
            priority: the priority of its jobs, -32,768 to 32,767, lower first; 0 if not given.
            queue: a serial queue for all its jobs, or a function that gets the payload and returns the queue (or None).
            max_attempts: the number of all runs of a job, 1 to 32,767; if not given, the policy's, else 8.
            delay: how long its jobs wait before they are due.
            key_of: a function that gets the payload and returns the job's key, if no `job_key` is given.
            unique_for: how long no second job of a key is added after the first, even if that has ended.

        The last six, and `by` of a limit or a rate, hold if a job is enqueued by this task; a spec or a keyword goes
        before them. Producers that enqueue by name, from the shell or by SQL do not know the task, so they have to give
        these settings again.

        Raises:
            TaskDefinitionError: a name is taken, no worker could call the handler, or a limit or a rate cannot be used.
            InvalidJobError: a name or a duration is out of range.
        """
        if not isinstance(identifier, str):
            raise TaskDefinitionError('name the task: @tasks.task("send_email"), not @tasks.task')
        where = f"task {identifier!r}"
        if isinstance(aliases, str):
            raise TaskDefinitionError(f"{where}: aliases is a list of names; got the string {aliases!r}")
        others = tuple(aliases)
        for name in (identifier, *others):
            check_text("task", name, IDENTIFIER_LIMIT)
        check_duration("timeout", timeout, zero=False)
        check_duration("keep", keep, zero=False)
        if keep is not None and keep > LONGEST_KEEP:
            raise InvalidJobError("keep", keep, f"a timedelta up to {LONGEST_KEEP.days} days")
        if retry is not None and not isinstance(retry, RetryPolicy):
            raise TaskDefinitionError(f"{where}: retry = {retry!r}: expected a RetryPolicy")
        if breaker is not None and not isinstance(breaker, Breaker):
            raise TaskDefinitionError(f"{where}: breaker = {breaker!r}: expected a Breaker, or leave it out")
        try:
            most, pace = checked_limits(limit, rate)
        except ConfigurationError as error:
            raise TaskDefinitionError(f"{where}: {error}") from None
        by = most.by if most is not None else pace.by if pace is not None else None
        around = checked_list(middleware, where)
        finals = exception_types(identifier, no_retry)
        queue_of = None if queue is None or isinstance(queue, Queue) or not callable(queue) else queue
        fixed: Any = None if queue_of is not None else queue
        said = JobSpec(
            priority=priority, queue=fixed, max_attempts=max_attempts, delay=delay, limit_by=by, unique_for=unique_for
        )
        defaults = UNSAID if said == UNSAID else said

        def decorate(handler: Callable[..., Any], /) -> Task[Any, Any]:
            scope = _scope(sys._getframe(1))  # noqa: SLF001 (documented in spite of its name)
            task: Task[Any, Any] = Task(
                identifier,
                handler,
                aliases=others,
                retry=retry,
                timeout=timeout,
                no_retry=finals,
                keep=keep,
                limit=most,
                rate=pace,
                breaker=breaker,
                run_in=run_in,
                batch=batch,
                express=express,
                defaults=defaults,
                queue_of=queue_of,
                key_of=key_of,
                scope=scope,
                middleware=around,
                registry_middleware=self._middleware,
            )
            if by is not None and task.shape.payload is None:
                raise TaskDefinitionError(f"{where}: by = {by!r}: its handler takes no payload; leave `by` out")
            if task.shape.is_async:
                refuse_synchronous(around, where)
            self._add(task)
            self._decorated(task)
            return task

        return decorate

    @overload  # an async function that takes any `call_next` fits both; the first is meant
    def middleware(  # type: ignore[overload-overlap]
        self, function: Callable[[CallNext, WorkerContext[D]], Coroutine[Any, Any, R]], /
    ) -> Callable[[CallNext, WorkerContext[D]], Coroutine[Any, Any, R]]: ...
    @overload
    def middleware(
        self, function: Callable[[Callable[[], object], WorkerContext[D]], R], /
    ) -> Callable[[Callable[[], object], WorkerContext[D]], R]: ...
    def middleware(self, function: Function, /) -> Function:
        """Register the decorated function as middleware: it runs around the handler of each task of this registry.

        It is called with `call_next`, whose call runs the handler, and with the handler's context. An async one wraps
        all handlers, in the attempt's asyncio task. A synchronous one wraps synchronous handlers, in their thread, and
        async handlers run without it. What it returns is the attempt's result, and what it raises the attempt's
        failure.

        The first that is registered is the outermost. Those of a registry that this one includes run within, and
        those of the task itself innermost. A worker takes what is registered when it starts.

        Args:
            function: the function.

        Returns:
            The same function.

        Raises:
            TaskDefinitionError: it is not a function of two arguments.
        """
        self._middleware.append(checked(function, "registry"))
        return function

    def middleware_of(self, task: Task[Any, Any]) -> tuple[Function, ...]:
        """The middleware with which a worker of this registry runs one of its tasks, the first outermost.

        Args:
            task: a task of this registry.
        """
        outer = self._outer.get(task.identifier, ())
        return (*(function for functions in outer for function in functions), *task.middleware)

    def wrapped(self, returned: Returned) -> TaskRegistry[D]:
        """A registry whose tasks run their middleware around their handlers; the same one if no task has any.

        Args:
            returned: called after each `call_next`, in the process and thread that it ended in.
        """
        tasks = {task: wrapped(task, self.middleware_of(task), returned) for task in self}
        if all(task is other for task, other in tasks.items()):
            return self
        registry: TaskRegistry[D] = copy(self)
        registry._tasks = {name: tasks[task] for name, task in self._tasks.items()}
        registry._names = {name: tasks[task] for name, task in self._names.items()}
        return registry

    def include(self, other: TaskRegistry[Any], prefix: str = "") -> None:
        """Add the tasks, schedules and plugins of another registry; `prefix` is put before each name.

        The other registry's middleware runs around its tasks, and this registry's around that.

        The other registry keeps its tasks under their own names. If a prefix changed a task's name, enqueue jobs by the
        task that `registry.get(name)` returns.

        Args:
            other: the other registry. Its tasks get the same `ctx.deps` as this registry's own tasks, which is what
                this registry's lifespan yields. Its plugins come after this registry's, and hear of all jobs of a
                worker, not only of those of its tasks.
            prefix: a text that is put before each name and alias, and before the identifiers of its schedules.

        Raises:
            TaskDefinitionError: the other registry has a lifespan, which only a worker's own registry can have, or a
                name or an identifier is taken.
            InvalidJobError: a name becomes too long with the prefix.
        """
        if other.lifespan is not None:
            raise TaskDefinitionError(
                "include: the other registry has a lifespan; give it to the one that the worker runs"
            )
        outer = {prefix + name: lists for name, lists in other._outer.items()}
        declared = self._with_those_of(other, prefix)
        self._take((task.renamed(prefix) if prefix else task for task in other), outer)
        self._declared = declared
        self.plugins = distinct([*self.plugins, *other.plugins])

    def add(self, tasks: Iterable[Task[Any, Any]], *, within: TaskRegistry[Any] | None = None) -> None:
        """Add existing tasks, either all of them or none.

        Args:
            tasks: tasks that other registries made, or a whole registry. That may have a lifespan, plugins and
                schedules, which are not taken over: the tasks get the `ctx.deps` that this registry's lifespan yields.
                Their middleware is kept, and this registry's runs around it.
            within: the registry that the tasks are taken from, if they are not all of it: what it includes with
                middleware around it keeps that.

        Raises:
            TaskDefinitionError: a name is taken.
            InvalidJobError: a name is too long.
        """
        source: TaskRegistry[Any] | None = tasks if isinstance(tasks, TaskRegistry) else within
        self._take(tasks, {} if source is None else source._outer)  # noqa: SLF001 (another one of this class)

    def _take(self, tasks: Iterable[Task[Any, Any]], outer: Mapping[str, tuple[list[Function], ...]]) -> None:
        """Add tasks of another registry, either all of them or none, and wrap this registry's middleware around them.

        Args:
            tasks: the tasks.
            outer: what that registry has in `_outer`.
        """
        added = list(tasks)
        for task in added:
            for name in (task.identifier, *task.aliases):
                check_text("task", name, IDENTIFIER_LIMIT)
                if name in self._names:
                    raise TaskDefinitionError(f"task {name!r} is registered already, by {self._names[name]!r}")
        for task in added:
            self._add(task)
            self._outer[task.identifier] = (self._middleware, *outer.get(task.identifier, ()))

    def get(self, identifier: str) -> Task[Any, Any] | None:
        """The task of that name or alias, or None."""
        return self._names.get(identifier)

    def identifiers(self) -> tuple[str, ...]:
        """Every name whose jobs this registry's handlers run, aliases included."""
        return tuple(self._names)

    def __iter__(self) -> Iterator[Task[Any, Any]]:
        """The tasks, in order of registration."""
        return iter(self._tasks.values())

    def __len__(self) -> int:
        """How many tasks there are."""
        return len(self._tasks)

    def _add(self, task: Task[Any, Any]) -> Task[Any, Any]:
        names = (task.identifier, *task.aliases)
        for name in names:
            if name in self._names or names.count(name) > 1:
                raise TaskDefinitionError(f"task {name!r} is registered already, by {self._names.get(name, task)!r}")
        self._tasks[task.identifier] = task
        self._names.update(dict.fromkeys(names, task))
        return task


def _scope(frame: Any) -> dict[str, Any]:
    """The local names that a handler sees if it is defined inside a function; the handler's globals have the others."""
    return {} if frame.f_locals is frame.f_globals else dict(frame.f_locals)
