"""Settings of the shell: the command line, then our variable, then the Rust crate's, then the default."""

from __future__ import annotations

from dataclasses import fields
from datetime import timedelta
from typing import Any

import pytest

from backfill import ConfigurationError, WorkerConfig
from backfill.cli import options
from backfill.cli.options import SETTINGS, VARIABLES
from backfill.cli.readers import Span
from backfill.cli.settings import Setting, Several, Switch, mistyped, without
from backfill.worker.config import SPANS

NAMES = [setting.option for setting in SETTINGS]
# Of each setting that has a form: a text that is another value than its default.
OTHER: dict[str, tuple[str, Any]] = {
    "--dsn": ("postgresql://shop", "postgresql://shop"),
    "--schema": ("shop", "shop"),
    "--debug": ("Yes", True),
    "--concurrency": ("50", 50),
    "--queue": ("user:*, shop:?", ("user:*", "shop:?")),
    "--task": ("video.*", ("video.*",)),
    "--crontab": ("night, day", ("night", "day")),
    "--forbidden-flag": ("gpu,,slow ", ("gpu", "slow")),
    "--accepted-flag": ("gpu,,slow ", ("gpu", "slow")),
    "--poll-interval": ("250ms", timedelta(milliseconds=250)),
    "--listen": ("false", False),
    "--listen-dsn": ("postgresql://direct", "postgresql://direct"),
    "--scheduling": ("off", False),
    "--shutdown-timeout": ("1h30m", timedelta(minutes=90)),
    "--ahead-bytes": ("1GB", 2**30),
    "--express": ("OFF", False),
    "--express-window": ("10ms", timedelta(milliseconds=10)),
    "--pool-size": ("7", 7),
    "--process-slots": ("4", 4),
    "--max-jobs-per-process": ("1000", 1000),
    "--max-process-rss": ("512MB", 2**29),
    "--heartbeat-interval": ("1.5", timedelta(seconds=1.5)),
    "--dead-after": ("1m", timedelta(minutes=1)),
    "--stuck-after": ("90s", timedelta(seconds=90)),
    "--blocked-after": ("OFF", None),
    "--health-address": (":8080", ":8080"),
    "--health-file": ("/tmp/worker.ready", "/tmp/worker.ready"),
    "--retry-traceback": ("Short", "short"),
    "--dlq-processor-interval": ("off", None),
    "--stale-lock-cleanup-interval": ("5m", timedelta(minutes=5)),
    "--stale-queue-lock-timeout": ("2d", timedelta(days=2)),
    "--stale-job-lock-timeout": ("12h", timedelta(hours=12)),
    "--processes": ("4", 4),
    "--max-jobs": ("10000", 10_000),
    "--max-rss": ("512MB", 2**29),
    "--log-level": ("DEBUG", "debug"),
    "--json": ("1", True),
}
# What none of these can be.
WRONG = {
    "--schema": "x" * 64, "--debug": "maybe", "--concurrency": "0", "--poll-interval": "2h", "--listen": "2",
    "--scheduling": "never",
    "--shutdown-timeout": "2d", "--ahead-bytes": "2048GB", "--pool-size": "ten", "--process-slots": "0",
    "--max-jobs-per-process": "-1", "--max-process-rss": "1MB", "--heartbeat-interval": "soon",
    "--dead-after": "-5s", "--stuck-after": "0", "--blocked-after": "1us", "--health-address": "8080",
    "--health-file": "/tmp/", "--retry-traceback": "long", "--dlq-processor-interval": "0",
    "--stale-lock-cleanup-interval": "2d", "--stale-queue-lock-timeout": "0.5", "--stale-job-lock-timeout": "366d",
    "--express": "never", "--express-window": "2s", "--processes": "1001", "--max-jobs": "0", "--max-rss": "512kB",
    "--log-level": "trace", "--json": "json", "--queue": ",", "--task": " , ,", "--crontab": ",",
    "--forbidden-flag": ",", "--accepted-flag": ",",
}  # fmt: skip
FOREIGN: dict[str, list[tuple[str, Any]]] = {
    "GRAPHILE_WORKER_SCHEMA": [("shop", "shop")],
    "POLL_INTERVAL_MS": [("200", timedelta(milliseconds=200)), ("10.5", timedelta(milliseconds=10.5))],
    "SHUTDOWN_TIMEOUT_SECS": [("0", timedelta(0)), ("25", timedelta(seconds=25))],
    "DLQ_PROCESSOR_INTERVAL_SECS": [("60", timedelta(seconds=60)), ("0", None)],
    "LOG_FORMAT": [("json", True), ("JSON", True), ("text", False)],
}
FOREIGN_WRONG = {
    "GRAPHILE_WORKER_SCHEMA": ["x" * 64], "POLL_INTERVAL_MS": ["9", "3600001", "2s", "-1", "10.0001"],
    "SHUTDOWN_TIMEOUT_SECS": ["86401", "30s", "9" * 15], "DLQ_PROCESSOR_INTERVAL_SECS": ["0.5", "off"],
    "LOG_FORMAT": ["%(message)s", "1"],
}  # fmt: skip


def held(setting: Setting[Any], given: str | None = None) -> Any:
    """What a setting says, with this on the command line."""
    return setting.values(None if given is None else [given]) if isinstance(setting, Several) else setting.value(given)


def test_every_setting_is_tried_here() -> None:
    """A new one is given its lines above."""
    assert set(OTHER) == set(NAMES)
    assert set(NAMES) - set(WRONG) == {"--dsn", "--listen-dsn"}
    foreign = {setting.foreign.name for setting in SETTINGS if setting.foreign is not None}
    assert set(FOREIGN) == set(FOREIGN_WRONG) == foreign


@pytest.mark.parametrize("setting", SETTINGS, ids=NAMES)
def test_the_order(setting: Setting[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each variable counts while those before it are empty or spaces only, and the command line before all of them."""
    default, (text, expected) = held(setting), OTHER[setting.option]
    assert default != expected
    for name in setting.variables:
        monkeypatch.setenv(name, "")
    assert held(setting) == default
    if setting.foreign is not None:
        other, meant = FOREIGN[setting.foreign.name][0]
        monkeypatch.setenv(setting.foreign.name, other)
        assert held(setting) == meant
    for name in reversed(setting.own_variables):
        monkeypatch.setenv(name, f" {text} ")
        assert held(setting) == expected
        if name != setting.own_variables[0]:
            monkeypatch.setenv(name, "  ")
    if isinstance(setting, Switch):
        assert setting.is_on(not expected) is not expected
    elif isinstance(setting, Several):
        assert setting.values(["a,b", "c"]) == ("a,b", "c")
        assert setting.values([""]) == ()
    else:
        assert held(setting, setting.default or "") == default


@pytest.mark.parametrize(("option", "wrong"), WRONG.items())
def test_a_wrong_value_is_named_by_its_place(option: str, wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The option or variable, the value, and what is allowed; a right value on the command line makes it harmless."""
    setting = SETTINGS[NAMES.index(option)]
    wrong = wrong.strip()
    if not isinstance(setting, (Switch, Several)):
        with pytest.raises(ConfigurationError) as caught:
            setting.value(wrong)
        assert str(caught.value) == f"{option} = {wrong!r}: expected {setting.read.expected()}"
    name = setting.own_variables[-1]
    monkeypatch.setenv(name, wrong)
    with pytest.raises(ConfigurationError) as caught:
        setting.value(None)
    assert str(caught.value) == f"{name} = {wrong!r}: expected {setting.read.expected()}"
    if isinstance(setting, Switch):
        assert setting.is_on(True) is True
    elif isinstance(setting, Several):
        assert setting.values(["a"]) == ("a",)
    else:
        assert setting.value(OTHER[option][0]) == OTHER[option][1]


@pytest.mark.parametrize("name", FOREIGN)
def test_the_rust_crates_variables(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They have their own units, and errors say these."""
    setting = next(one for one in SETTINGS if one.foreign is not None and one.foreign.name == name)
    assert setting.foreign is not None
    for text, expected in FOREIGN[name]:
        monkeypatch.setenv(name, text)
        assert setting.value(None) == expected
    for text in FOREIGN_WRONG[name]:
        monkeypatch.setenv(name, text)
        with pytest.raises(ConfigurationError) as caught:
            setting.value(None)
        assert str(caught.value) == f"{name} = {text!r}: expected {setting.foreign.read.expected()}"


def test_what_is_allowed_reads_well() -> None:
    """Limits are in units, with examples."""
    assert options.CONCURRENCY.read.expected() == "an integer from 1 to 10000"
    assert options.POLL_INTERVAL.read.expected() == "a time from 10ms to 1h, such as 90s, 1.5s or 250ms"
    assert options.BLOCKED_AFTER.read.expected() == "a time from 10ms to 1h, such as 90s, 1.5s or 250ms; or off"
    assert options.POLL_INTERVAL.foreign is not None
    assert options.POLL_INTERVAL.foreign.read.expected() == "a number of milliseconds from 10 to 3600000"


@pytest.mark.parametrize("name", SPANS)
def test_a_time_is_refused_with_examples_that_are_taken(name: str) -> None:
    """Whoever follows the message has a time that the setting takes."""
    read = Span(name)
    examples = read.expected().partition("such as ")[2].replace(" or ", ", ").split(", ")
    assert examples != [""]
    assert all(read(example) for example in examples)


def test_defaults_are_those_of_the_worker() -> None:
    """The shell's defaults are `WorkerConfig`'s; the fields without an option are those that only a program can say."""
    config = WorkerConfig("postgresql://shop")
    names = {"queue": "queues", "forbidden-flag": "forbidden_flags", "accepted-flag": "accepted_flags"}
    shell = {names.get(word := option.removeprefix("--"), word.replace("-", "_")): option for option in NAMES}
    own = {field.name for field in fields(WorkerConfig)}
    assert own - set(shell) == {"retry"}
    assert set(shell) - own == {"task", "crontab", "processes", "max_jobs", "max_rss", "debug", "log_level", "json"}
    for name in own - {"retry", "dsn", "concurrency"}:
        assert held(SETTINGS[NAMES.index(shell[name])]) == getattr(config, name), name
    assert options.CONCURRENCY.value(None) == config.slots


def test_no_two_settings_share_a_variable() -> None:
    """And each has one of its own, made of the option's name."""
    assert len(VARIABLES) == sum(len(setting.variables) for setting in SETTINGS)
    for setting in SETTINGS:
        word = setting.option.removeprefix("--").replace("-", "_").upper()
        assert f"BACKFILL_{word}" in setting.own_variables


def test_a_child_gets_none_of_them() -> None:
    """What is told everything by its command line has no settings in its environment."""
    given = {"PATH": "/bin", **dict.fromkeys(VARIABLES, "1")}
    assert without(given, VARIABLES) == {"PATH": "/bin"}


def test_slips_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each name that is nearly one of ours; those of the application are left in peace."""
    slips = {
        "BACKFILL_CONCURENCY": "BACKFILL_CONCURRENCY",
        "BACKFILL_NO_LISTEN": "BACKFILL_LISTEN",
        "BACKFILL_DLQ_PROCESSOR_INTERVAL_SECS": "BACKFILL_DLQ_PROCESSOR_INTERVAL",
    }
    for name in (*slips, "BACKFILL_SEED", "BACKFILL_HYPOTHESIS", "BACKFILL_REGION", "BACKFILL_PORT", "CONCURENCY"):
        monkeypatch.setenv(name, "1")
    assert mistyped(VARIABLES) == slips
