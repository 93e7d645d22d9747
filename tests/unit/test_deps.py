"""What handlers expect as `ctx.deps`, and who is refused because nobody makes it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from backfill import BackfillClient, TaskDefinitionError, TaskRegistry, WorkerConfig, WorkerContext, WorkerRunner

if TYPE_CHECKING:
    from somewhere import Absent  # type: ignore[import-not-found]


class Deps:
    """What a lifespan makes."""


class Has:
    """Handlers that need dependencies, or may do without."""

    async def needs(payload: int, ctx: WorkerContext[Deps]) -> None: ...  # noqa: N805
    async def alone(ctx: WorkerContext[Deps] | None) -> None: ...  # noqa: N805
    async def may(payload: int, ctx: WorkerContext[Deps | None]) -> None: ...  # noqa: N805
    async def none(payload: int, ctx: WorkerContext[None]) -> None: ...  # noqa: N805
    async def any(payload: int, ctx: WorkerContext[Any]) -> None: ...  # noqa: N805
    async def bare(payload: int, ctx: WorkerContext) -> None: ...  # type: ignore[type-arg]  # noqa: N805
    async def absent(payload: int, ctx: WorkerContext[Absent]) -> None: ...  # noqa: N805
    async def nothing(payload: int, ctx) -> None: ...  # type: ignore[no-untyped-def]  # noqa: N805


@asynccontextmanager
async def _lifespan(client: BackfillClient) -> AsyncIterator[Deps]:
    yield Deps()


@pytest.mark.parametrize("name", ["needs", "alone", "may", "none", "any", "bare", "absent", "nothing"])
def test_dependencies_that_nobody_makes_are_refused_at_the_start(name: str) -> None:
    """A handler that expects them would fail in each attempt, up to the dead letter; what may be None is no such."""
    handler = getattr(Has, name)
    config, registry = WorkerConfig("postgresql:///"), TaskRegistry()
    registry.task("t")(handler)
    if name in ("needs", "alone"):
        with pytest.raises(TaskDefinitionError, match=r"^task 't': its handler expects ctx\.deps of type Deps"):
            WorkerRunner(config, registry)
    else:
        WorkerRunner(config, registry)
    whole = TaskRegistry(lifespan=_lifespan)
    whole.include(registry)
    WorkerRunner(config, whole)


def test_a_registry_for_inclusion_says_which_dependencies_its_handlers_take() -> None:
    """It runs by itself nowhere, and what is no class of theirs is refused."""
    part = TaskRegistry(deps=Deps)
    part.task("t")(lambda: None)
    with pytest.raises(TaskDefinitionError, match=r"^registry: its handlers expect ctx\.deps of type Deps"):
        WorkerRunner(WorkerConfig("postgresql:///"), part)
    whole = TaskRegistry(lifespan=_lifespan)
    whole.include(part)
    WorkerRunner(WorkerConfig("postgresql:///"), whole)
    for wrong in ({"deps": Deps()}, {"deps": Deps, "lifespan": _lifespan}):
        with pytest.raises(TaskDefinitionError, match=r"deps = .*expected the class"):
            TaskRegistry(**wrong)  # type: ignore[call-overload]
