"""Tasks: what the decorator takes and refuses, annotations resolved late, payloads checked early, and direct calls."""

from __future__ import annotations

import functools
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypedDict

import msgspec
import pydantic
import pytest

from backfill import (
    BackfillClient,
    InvalidJobError,
    InvalidPayloadError,
    NewJob,
    RetryPolicy,
    Task,
    TaskDefinitionError,
    TaskRegistry,
    WorkerContext,
)
from backfill.records import Job

if TYPE_CHECKING:
    from decimal import Decimal

    from somewhere import Absent  # type: ignore[import-not-found]

Context = WorkerContext[None]


@dataclass
class Mail:
    """A dataclass."""

    to: str
    copies: int = 1


class Parcel(msgspec.Struct):
    """A Struct."""

    weight: float


class Note(TypedDict):
    """A TypedDict."""

    text: str


class Order(pydantic.BaseModel):
    """A pydantic model."""

    number: int


@dataclass
class Incomplete:
    """A payload one of whose own annotations lacks its import."""

    price: Decimal


def context() -> WorkerContext[None]:
    """A context such as a worker gives."""
    return WorkerContext(
        job=Job(id=7, task_identifier="t"), worker_id="w", deps=None, client=BackfillClient("postgresql:///")
    )


def registered(handler: Callable[..., Any], **settings: Any) -> Task[Any, Any]:
    """A task of a registry of its own."""
    return TaskRegistry().task("t", **settings)(handler)


# --- the registry


def test_a_registry_knows_its_tasks_by_every_name() -> None:
    """In order of registration; aliases are names too."""
    tasks = TaskRegistry()

    @tasks.task("new", aliases=["old", "older"], retry=RetryPolicy.fast(), timeout=timedelta(seconds=3))
    async def new() -> None:
        """What it does."""

    other = tasks.task("other")(lambda: None)
    assert list(tasks) == [new, other]
    assert len(tasks) == 2
    assert tasks.identifiers() == ("new", "old", "older", "other")
    assert tasks.get("older") is new
    assert tasks.get("none") is None
    assert (new.identifier, new.aliases, new.timeout) == ("new", ("old", "older"), timedelta(seconds=3))
    assert (new.default_max_attempts, other.default_max_attempts) == (3, None)
    assert new.__doc__ == "What it does."
    assert repr(new) == f"Task('new', {new.handler.__qualname__})"


@pytest.mark.parametrize(
    ("identifier", "aliases"), [("a", []), ("b", []), ("c", ["a"]), ("c", ["b"]), ("c", ["c"]), ("c", ["d", "d"])]
)
def test_a_name_belongs_to_one_task(identifier: str, aliases: list[str]) -> None:
    """Identifiers and aliases alike, and a refused task leaves nothing behind."""
    tasks = TaskRegistry()
    tasks.task("a", aliases=["b"])(lambda: None)
    with pytest.raises(TaskDefinitionError, match="is registered already"):
        tasks.task(identifier, aliases=aliases)(lambda: None)
    assert tasks.identifiers() == ("a", "b")


def test_a_registry_refuses_what_no_task_could_be() -> None:
    """Names, aliases, durations, policies and lifespans that cannot be used are named."""
    tasks = TaskRegistry()
    for call, kind, message in (
        (
            lambda: tasks.task(lambda: None),  # type: ignore[arg-type]
            TaskDefinitionError,
            'name the task: @tasks.task("send_email")',
        ),
        (lambda: tasks.task(""), InvalidJobError, "task = ''"),
        (lambda: tasks.task("t" * 129), InvalidJobError, "1 to 128 characters"),
        (lambda: tasks.task("a\0"), InvalidJobError, "without NUL"),
        (lambda: tasks.task("t", aliases="old"), TaskDefinitionError, "aliases is a list of names"),
        (lambda: tasks.task("t", aliases=["\0"]), InvalidJobError, "without NUL"),
        (lambda: tasks.task("t", timeout=timedelta(0)), InvalidJobError, "timeout = "),
        (lambda: tasks.task("t", timeout=3), InvalidJobError, "timeout = 3"),  # type: ignore[arg-type]
        (
            lambda: tasks.task("t", retry="fast"),  # type: ignore[arg-type]
            TaskDefinitionError,
            "expected a RetryPolicy",
        ),
        (lambda: TaskRegistry(lifespan=_not_decorated), TaskDefinitionError, "@asynccontextmanager"),
        (lambda: TaskRegistry(lifespan=3), TaskDefinitionError, "lifespan = 3"),
    ):
        with pytest.raises(kind) as caught:
            call()
        assert message in str(caught.value)
    assert len(tasks) == 0


async def _not_decorated(client: BackfillClient) -> Any:
    yield client


# --- the handler's shape


class Sender:
    """A handler that is an object."""

    async def __call__(self, mail: Mail, ctx: WorkerContext[Any]) -> None:
        """Do nothing."""

    async def method(self, mail: Mail) -> None:
        """Do nothing."""


async def _two(mail: Mail, ctx: WorkerContext[Any]) -> None: ...
async def _aliased(mail: Mail, ctx: Context) -> None: ...
async def _alias_alone(ctx: Context) -> None: ...
async def _optional_context(mail: Mail, ctx: WorkerContext[Any] | None = None) -> None: ...
async def _bare_context(mail: Mail, ctx=None) -> None: ...  # type: ignore[no-untyped-def]
async def _bare_context_alone(ctx) -> None: ...  # type: ignore[no-untyped-def]
async def _own_default(mail: Mail, dry_run: bool = False) -> None: ...
async def _defaults(mail: Mail = Mail("a"), *, loud: bool = True) -> None: ...
def _sync(mail: Mail) -> None: ...
async def _bound(greeting: str, mail: Mail, ctx: WorkerContext[Any]) -> None: ...
@functools.wraps(_two)
async def _wrapped(*args: Any) -> None: ...


@pytest.mark.parametrize(
    ("handler", "is_async", "payload", "takes_context"),
    [
        (_two, True, "mail", True),
        (_aliased, True, "mail", True),
        (_alias_alone, True, None, True),
        (_optional_context, True, "mail", True),
        (_bare_context, True, "mail", True),
        (_bare_context_alone, True, None, True),
        (_own_default, True, "mail", False),
        (_defaults, True, "mail", False),
        (_sync, False, "mail", False),
        (functools.partial(_bound, "hi"), True, "mail", True),
        (_wrapped, True, "mail", True),
        (Sender(), True, "mail", True),
        (Sender().method, True, "mail", False),
        (lambda: None, False, None, False),
        (lambda payload: payload, False, "payload", False),
    ],
)
def test_a_handlers_shape(
    handler: Callable[..., Any], is_async: bool, payload: str | None, takes_context: bool
) -> None:
    """Which parameters a worker fills, and how the handler is called, whatever it was made from."""
    task = registered(handler)
    assert (task.shape.is_async, task.shape.context) == (is_async, takes_context)
    assert (task.shape.payload and task.shape.payload.name) == payload
    assert task.payload_type is (Mail if payload == "mail" else Any)


async def _generator() -> Any:
    yield 1


def _sync_generator() -> Any:
    yield 1


async def _three(payload: Any, ctx: WorkerContext[Any], third: int) -> None: ...
async def _context_first(ctx: WorkerContext[Any], payload: Any) -> None: ...
async def _keyword(payload: Any, *, size: int) -> None: ...


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        (_generator, "is a generator"),
        (_sync_generator, "is a generator"),
        (_three, "takes 3 parameters"),
        (_context_first, "takes ctx first"),
        (_keyword, "requires 'size'"),
        ("text", "is not callable"),
    ],
)
def test_shapes_that_no_worker_could_call(handler: Any, message: str) -> None:
    """They are refused where they are decorated, by the task's name."""
    with pytest.raises(TaskDefinitionError, match=rf"^task 't': .*{message}"):
        registered(handler)


# --- the payload's type


async def _late(late: Late) -> None: ...


@dataclass
class Late:
    """A payload that stands below its handler."""

    x: int


def test_annotations_are_resolved_when_they_are_needed() -> None:
    """A payload may stand below its handler, or beside it in a function; other parameters' imports are not needed."""

    @dataclass
    class Local:
        y: int

    @TaskRegistry().task("t")
    async def local(payload: Local) -> None: ...
    async def lax(mail: Mail, ctx: WorkerContext[Absent]) -> Absent: ...

    assert registered(_late).payload_type is Late
    assert local.decode(b'{"y":3}') == Local(3)
    assert registered(lax).payload_type is Mail


async def _absent(payload: Absent) -> None: ...
async def _absent_inside(payload: list[Absent] | None) -> None: ...
async def _attribute(payload: msgspec.Absent) -> None: ...  # type: ignore[name-defined]
async def _incomplete(payload: Incomplete) -> None: ...


@pytest.mark.parametrize(
    ("handler", "missing"),
    [(_absent, "'Absent'"), (_absent_inside, "'Absent'"), (_attribute, "'Absent'"), (_incomplete, "'Decimal'")],
)
def test_a_missing_import_is_named(handler: Callable[..., Any], missing: str) -> None:
    """Registering asks for nothing; what needs the type says which name is missing, and of which task."""
    task = registered(handler)
    for call in (lambda: task.payload_type, lambda: task.decode(b"{}"), lambda: task.job({}), lambda: NewJob(task, {})):
        with pytest.raises(TaskDefinitionError, match=f"^task 't': .*{missing}"):
            call()


async def _mail(payload: Mail) -> None: ...
async def _parcel(payload: Parcel) -> None: ...
async def _note(payload: Note) -> None: ...
async def _order(payload: Order) -> None: ...
async def _either(payload: Mail | Late) -> None: ...
async def _maybe(payload: Mail | None) -> None: ...
async def _list(payload: list[int]) -> None: ...
async def _plain(payload: Any) -> None: ...
async def _untold(payload) -> None: ...  # type: ignore[no-untyped-def]


@pytest.mark.parametrize(
    ("handler", "raw", "payload", "wrong"),
    [
        (_mail, b'{"to":"a"}', Mail("a"), {"to": "a"}),
        (_parcel, b'{"weight":1}', Parcel(1.0), Mail("a")),
        (_note, b'{"text":"a"}', {"text": "a"}, None),
        (_order, b'{"number":3}', Order(number=3), {"number": 3}),
        (_either, b'{"x":3}', Late(3), None),
        (_maybe, b"null", None, None),
        (_list, b"[1]", [1], None),
        (_plain, b'{"a":[null]}', {"a": [None]}, None),
        (_untold, b'"a"', "a", None),
    ],
)
def test_every_kind_of_payload(handler: Callable[..., Any], raw: bytes, payload: Any, wrong: Any) -> None:
    """Each is read as its type, and one of another class of records is refused where the job is made."""
    task = registered(handler)
    assert task.decode(raw) == payload
    job = task.job(payload)
    assert (job.task, job.payload) == ("t", payload)
    if wrong is not None:
        for make in (task.job, lambda value: NewJob(task, value)):
            with pytest.raises(InvalidPayloadError, match=f"task 't' takes {type(payload).__name__}, not") as caught:
                make(wrong)
            assert caught.value.field == "payload"


def test_a_payload_of_a_subclass_is_one_of_the_class() -> None:
    """What the checkers let pass, passes."""

    class Urgent(Mail):
        pass

    assert registered(_mail).job(Urgent("a")).payload == Urgent("a")


def test_a_job_does_not_show_its_payload() -> None:
    """It may be a secret, and jobs are shown in messages."""
    assert "secret" not in repr(registered(_mail).job(Mail("secret")))


# --- direct calls


async def test_a_task_that_is_awaited_runs_its_handler() -> None:
    """Async or not, with its own arguments and result, and without the queue."""

    async def both(mail: Mail, ctx: WorkerContext[None]) -> str:
        return f"{mail.to} {ctx.job.id}"

    def thread(mail: Mail) -> tuple[str, bool]:
        return mail.to, threading.current_thread() is threading.main_thread()

    def gives_awaitable(mail: Mail) -> Awaitable[str]:
        return both(mail, context())

    async def alone(ctx: WorkerContext[None]) -> int:
        return ctx.job.id

    def nothing() -> int:
        return 1

    assert await registered(both)(Mail("a"), context()) == "a 7"
    assert await registered(both)(Mail("a"), ctx=context()) == "a 7"
    assert await registered(thread)(Mail("a")) == ("a", False)
    assert await registered(thread)(Mail("a"), context()) == ("a", False)
    assert await registered(gives_awaitable)(Mail("a")) == "a 7"
    assert await registered(alone)(ctx=context()) == 7
    assert await registered(alone)(context()) == 7
    assert await registered(nothing)() == 1


@pytest.mark.parametrize("handler", [_two, _alias_alone, _optional_context])
async def test_a_missing_context_is_named(handler: Callable[..., Any]) -> None:
    """The error says which of the package's helpers makes one."""
    task = registered(handler)
    with pytest.raises(TypeError, match=r"task 't': its handler takes a context .*run_job"):
        await (task() if task.shape.payload is None else task(Mail("a")))


async def test_a_payload_for_a_handler_without_one_is_refused() -> None:
    """As a function without parameters would."""
    for handler in (_alias_alone, lambda: None):
        with pytest.raises(TypeError, match="task 't': its handler takes no payload"):
            await registered(handler)(Mail("a"), context())
