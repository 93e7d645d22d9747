"""What may be registered as a callback or given as a plugin, and what the refusals say."""

from __future__ import annotations

import functools
from datetime import timedelta
from typing import Any

import pytest

from backfill import (
    BeforeJobRun,
    BeforeJobSchedule,
    ConfigurationError,
    ContinueWith,
    HookRegistry,
    JobComplete,
    LoggingPlugin,
    TaskRegistry,
    WorkerConfig,
    WorkerRunner,
)
from backfill.hooks import ObservedEvent, answer_of, composed
from backfill.hooks.registry import NoAnswerError
from backfill.records import Job

from hearing import Heard

COMPLETE = JobComplete(Job(id=1, task_identifier="t"), "w", timedelta(0))


class Callable:
    """An object that can be called with an event."""

    def __call__(self, event: Any, more: int = 3) -> None:
        """Do nothing."""


@pytest.mark.parametrize("callback", [print, list[Any]().append, Callable(), functools.partial(Callable(), more=4)])
def test_whatever_takes_an_event_is_taken(callback: Any) -> None:
    """Functions, methods, objects, partials, and what is written in C."""
    hooks = HookRegistry()
    hooks.on(JobComplete, callback)
    assert (hooks.callbacks(JobComplete), len(hooks)) == ((callback,), 1)
    assert hooks.callbacks(BeforeJobRun) == ()


def _generator(event: Any) -> Any:
    yield event


@pytest.mark.parametrize(
    ("event", "callback", "said"),
    [
        ("JobDone", print, "event = 'JobDone': expected a class of backfill.hooks: WorkerInit, "),
        (ObservedEvent, print, "event = the class ObservedEvent: expected"),
        (COMPLETE, print, "event = an instance of JobComplete"),
        (JobComplete, "secret", "JobComplete: callback = 'secret': expected a function"),
        (JobComplete, lambda: None, r"cannot be called with the event alone \(too many positional arguments\)"),
        (JobComplete, lambda event, job: None, r"\(missing a required argument: 'job'\); give it one parameter"),
        (JobComplete, _generator, "_generator: it is a generator, whose body nobody would run"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_callback_is_refused(event: Any, callback: Any, said: str) -> None:
    """At once, with the value and the way out."""
    with pytest.raises(ConfigurationError, match=said):
        HookRegistry().on(event, callback)


class Late:
    """A plugin that keeps the registry."""

    def register(self, hooks: HookRegistry) -> None:
        """Keep it."""
        self.hooks = hooks


class Async:
    """A plugin whose register is async."""

    async def register(self, hooks: HookRegistry) -> None:
        """Do nothing."""


@pytest.mark.parametrize(
    ("plugins", "said"),
    [
        (Heard, "plugins = the class Heard: expected a list of plugins"),
        (Heard(), "plugins = an instance of Heard: expected a list"),
        ([Heard], r"plugins\[0\] = the class Heard: expected a plugin, not its class; make one: Heard\(\)"),
        ([Heard(), 3], r"plugins\[1\] = an instance of int: expected an object with a method register"),
        ([Async()], r"plugins\[0\] = an instance of Async: its register is async"),
    ],
)
def test_what_is_no_plugin_is_refused(plugins: Any, said: str) -> None:
    """By the registry of tasks and by the worker."""
    with pytest.raises(ConfigurationError, match=said):
        TaskRegistry(plugins=plugins)
    tasks: TaskRegistry[None] = TaskRegistry()
    tasks.task("t")(_nothing)
    with pytest.raises(ConfigurationError, match=said):
        WorkerRunner(WorkerConfig("postgresql:///"), tasks, plugins=plugins)


async def _nothing() -> None:
    pass


class Broken:
    """A plugin that cannot be registered."""

    def register(self, hooks: HookRegistry) -> None:
        """Raise an error that does not say where it comes from."""
        raise KeyError("token")


def test_a_plugin_that_breaks_is_named() -> None:
    """Its own error is raised, with a note that says which of the plugins raised it."""
    with pytest.raises(KeyError) as caught:
        composed([Heard(), Broken()])
    assert caught.value.__notes__ == ["raised by the register of a plugin, an instance of Broken"]


def test_it_is_too_late_once_the_worker_is_made() -> None:
    """The callbacks are put together once."""
    late = Late()
    composed([late])
    with pytest.raises(ConfigurationError, match="event = JobComplete: it is too late"):
        late.hooks.on(JobComplete, print)


async def test_answers_are_checked() -> None:
    """None is Continue; a payload may be replaced only where a job is added; the message shows a type and no value."""
    event = BeforeJobRun(Job(id=1, task_identifier="t"), "w", "secret")
    assert "secret" not in repr(event)
    with pytest.raises(NoAnswerError, match=r"type ContinueWith; expected one of Continue\(\), Skip\(\), Fail\(...\)"):
        await answer_of(lambda _: ContinueWith("secret"), event)
    with pytest.raises(NoAnswerError, match="of type str") as refused:
        await answer_of(lambda _: "secret", event)
    assert "secret" not in str(refused.value)
    schedule: Any = BeforeJobSchedule("t", "secret", None)  # type: ignore[arg-type]
    assert await answer_of(lambda _: ContinueWith(3), schedule) == ContinueWith(3)
    assert "secret" not in repr(schedule) + repr(ContinueWith("secret"))


def test_the_logging_plugin_refuses_wrong_levels() -> None:
    """Events that no observer hears of, and levels that are no numbers."""
    with pytest.raises(ConfigurationError, match="is no event of observers"):
        LoggingPlugin(levels={BeforeJobRun: 10})  # type: ignore[dict-item]
    with pytest.raises(ConfigurationError, match=r"levels\[JobComplete\] = 'INFO': expected a level"):
        LoggingPlugin(levels={JobComplete: "INFO"})  # type: ignore[dict-item]
