"""Fixtures of all tests, a small plugin a concern."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

from backfill.cli.options import VARIABLES

# The shell's settings of whoever runs the tests are not those of the programs that tests start.
for _name in VARIABLES - {"DATABASE_URL"}:
    os.environ.pop(_name, None)

pytest_plugins = [
    "plugins.server",
    "plugins.databases",
    "plugins.signals",
    "plugins.garbage",
    "plugins.leaks",
    "plugins.waiting",
    "plugins.node",
    "plugins.rust",
    "plugins.crossings",
    "plugins.schemas",
    "plugins.plain",
    "plugins.pooler",
    "plugins.away",
    "plugins.roles",
    "plugins.supervised",
    "plugins.developing",
    "plugins.express",
]

_QUIET = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]
settings.register_profile("default", deadline=None, max_examples=100, suppress_health_check=_QUIET)
settings.register_profile("ci", deadline=None, max_examples=30, derandomize=True, suppress_health_check=_QUIET)
settings.register_profile("long", deadline=None, max_examples=5000, suppress_health_check=_QUIET)
settings.load_profile(os.environ.get("BACKFILL_HYPOTHESIS", "ci" if os.environ.get("CI") else "default"))
