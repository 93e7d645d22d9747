"""The registry in which plugins register their callbacks, and what may be registered."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, Protocol, TypeAlias, TypeVar, cast, overload, runtime_checkable

from backfill.errors import ConfigurationError
from backfill.hooks.answers import (
    ANSWERS,
    CONTINUE,
    AfterJobRun,
    Asked,
    BeforeJobRun,
    BeforeJobSchedule,
    ContinueWith,
    Fail,
    HookResult,
    JobScheduleResult,
)
from backfill.hooks.events import OBSERVED, ObservedEvent
from backfill.hooks.tracing import Tracer

O = TypeVar("O", bound=ObservedEvent)  # noqa: E741 - a type variable, used in signatures only
E = TypeVar("E")

Observer: TypeAlias = Callable[[O], Awaitable[None] | None]
BeforeRunCallback: TypeAlias = Callable[[BeforeJobRun], HookResult | Awaitable[HookResult | None] | None]
AfterRunCallback: TypeAlias = Callable[[AfterJobRun], HookResult | Awaitable[HookResult | None] | None]
ScheduleCallback: TypeAlias = Callable[
    [BeforeJobSchedule], JobScheduleResult | Awaitable[JobScheduleResult | None] | None
]


@runtime_checkable
class Plugin(Protocol):
    """Something that registers callbacks; `plugins=` of a registry, a worker and a client take a list of them."""

    def register(self, hooks: HookRegistry) -> None:
        """Register the plugin's callbacks by `hooks.on`. It is called once for each worker or client that is made."""
        ...


class HookRegistry:
    """The callbacks of a worker or a client, in the order in which they were registered."""

    def __init__(self) -> None:
        self._callbacks: dict[type[Any], list[Callable[[Any], Any]]] = {}
        self._closed = False
        self.tracer: Tracer | None = None
        """What makes spans, where a plugin has given that."""

    @overload  # mypy shows this one where none fits; most callbacks are observers
    def on(self, event: type[O], callback: Observer[O]) -> None: ...
    @overload
    def on(self, event: type[BeforeJobRun], callback: BeforeRunCallback) -> None: ...
    @overload
    def on(self, event: type[AfterJobRun], callback: AfterRunCallback) -> None: ...
    @overload
    def on(self, event: type[BeforeJobSchedule], callback: ScheduleCallback) -> None: ...
    def on(self, event: type[Any], callback: Callable[[Any], Any]) -> None:
        """Call a function at each event of a kind. One function may be registered for several kinds.

        Args:
            event: the class of the event, such as `JobComplete`.
            callback: a function, sync or async, that takes the event. That of an observer returns nothing. That of an
                interceptor returns one of the event's answers, or None for `Continue`.

        Raises:
            ConfigurationError: there is no such event, the callback cannot be called with the event, or the registry
                belongs to a worker or client that was made already.
        """
        if not isinstance(event, type) or event not in _EVENTS:
            raise ConfigurationError(f"event = {_shown(event)}: expected a class of backfill.hooks: {_NAMES}")
        if self._closed:
            raise ConfigurationError(
                f"event = {event.__name__}: it is too late to register a callback, since the worker or client was made "
                "already; call hooks.on within the plugin's register"
            )
        _check_callback(event, callback)
        self._callbacks.setdefault(event, []).append(callback)

    def trace(self, tracer: Tracer) -> None:
        """Make spans by this tracer; `backfill.contrib.opentelemetry.Tracing` calls this within its `register`.

        Raises:
            ConfigurationError: another plugin has given a tracer already, or it is too late.
        """
        if self._closed:
            raise ConfigurationError("tracer: it is too late; call hooks.trace within the plugin's register")
        if self.tracer is not None:
            raise ConfigurationError(
                "plugins: two of them make traces; give one object to the registry, the worker and the clients, such "
                "as tracing = Tracing()"
            )
        self.tracer = tracer

    def callbacks(self, event: type[E]) -> tuple[Callable[[E], Any], ...]:
        """The callbacks of one event, in the order of their registration."""
        return tuple(self._callbacks.get(event, ()))

    def schedule_chain(self) -> tuple[ScheduleCallback, ...]:
        """The interceptors of BeforeJobSchedule, in the order of their registration."""
        return cast("tuple[ScheduleCallback, ...]", self.callbacks(BeforeJobSchedule))

    def close(self) -> None:
        """Refuse callbacks from now on, since the callbacks are put together once."""
        self._closed = True

    def __len__(self) -> int:
        """How many callbacks there are."""
        return sum(map(len, self._callbacks.values()))


def composed(plugins: Iterable[Plugin]) -> HookRegistry:
    """The callbacks of plugins in one registry, which takes no others; a plugin that is given twice is asked once."""
    hooks = HookRegistry()
    for plugin in distinct(plugins):
        try:
            plugin.register(hooks)
        except Exception as error:
            error.add_note(f"raised by the register of a plugin, {_shown(plugin)}")
            raise
    hooks.close()
    return hooks


def distinct(plugins: Iterable[Plugin]) -> tuple[Plugin, ...]:
    """Plugins in their order, each object once."""
    found: list[Plugin] = []
    for plugin in plugins:
        if not any(plugin is other for other in found):
            found.append(plugin)
    return tuple(found)


def checked_plugins(plugins: Iterable[Plugin]) -> tuple[Plugin, ...]:
    """Check the argument `plugins`, and return the plugins in their order, each object once.

    Raises:
        ConfigurationError: it is not a list, or holds something that is no plugin.
    """
    if isinstance(plugins, (str, bytes, type)) or not isinstance(plugins, Iterable):
        raise ConfigurationError(f"plugins = {_shown(plugins)}: expected a list of plugins")
    given = list(plugins)
    for place, plugin in enumerate(given):
        if isinstance(plugin, type):
            raise ConfigurationError(
                f"plugins[{place}] = {_shown(plugin)}: expected a plugin, not its class; make one: {plugin.__name__}()"
            )
        if not isinstance(plugin, Plugin) or not callable(plugin.register):
            raise ConfigurationError(
                f"plugins[{place}] = {_shown(plugin)}: expected an object with a method register(hooks), in which it "
                "calls hooks.on(event, callback)"
            )
        if inspect.iscoroutinefunction(plugin.register):
            raise ConfigurationError(
                f"plugins[{place}] = {_shown(plugin)}: its register is async; make it a plain method, since the "
                "callbacks alone may be async"
            )
    return distinct(given)


class NoAnswerError(TypeError):
    """An interceptor returned something that is not an answer; the message shows the value's type only."""


async def answer_of(callback: Callable[[Any], Any], event: Asked) -> Any:
    """What an interceptor answers; `Continue` where it returns None.

    Raises:
        NoAnswerError: it returned something that is not an answer to this event.
    """
    answer = callback(event)
    if inspect.isawaitable(answer):
        answer = await answer
    if answer is None:
        return CONTINUE
    allowed = ANSWERS[type(event)]
    if not isinstance(answer, allowed):
        names = ", ".join(f"{one.__name__}({'...' if one in _WITH_VALUE else ''})" for one in allowed)
        raise NoAnswerError(
            f"it returned a value of type {type(answer).__qualname__}; expected one of {names}, or None, which means "
            "the same as Continue()"
        )
    return answer


_EVENTS: Final = frozenset[type[Any]]([*OBSERVED, *ANSWERS])
_NAMES: Final = ", ".join(event.__name__ for event in (*OBSERVED, *ANSWERS))
_WITH_VALUE: Final = (ContinueWith, Fail)


def name_of(callback: object) -> str:
    """The dotted name of a callback, for the log."""
    name = getattr(callback, "__qualname__", None)
    if name is None:
        return f"{type(callback).__module__}.{type(callback).__qualname__}"
    return f"{getattr(callback, '__module__', None) or '?'}.{name}"


def _check_callback(event: type[Any], callback: object) -> None:
    """Refuse what could not be called with an event, or would do nothing when it is called."""
    where = f"{event.__name__}: callback = "
    if not callable(callback):
        raise ConfigurationError(f"{where}{_shown(callback)}: expected a function that takes the event")
    if inspect.isgeneratorfunction(callback) or inspect.isasyncgenfunction(callback):
        raise ConfigurationError(
            f"{where}{name_of(callback)}: it is a generator, whose body nobody would run; remove the yield"
        )
    try:
        signature = inspect.signature(callback)
    except (TypeError, ValueError):  # a callable that is written in C may have no signature
        return
    try:
        signature.bind(None)
    except TypeError as error:
        raise ConfigurationError(
            f"{where}{name_of(callback)}{signature}: it cannot be called with the event alone ({error}); give it one "
            "parameter, and a default to each other one"
        ) from None


def _shown(value: object) -> str:
    """A value for a message: a class or a short text itself, of everything else the class, since it may be secret."""
    if isinstance(value, type):
        return f"the class {value.__qualname__}"
    return repr(value) if isinstance(value, str) and len(value) < 100 else f"an instance of {type(value).__qualname__}"
