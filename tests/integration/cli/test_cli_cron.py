"""`backfill cron`: what its commands say, print and refuse."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime
from typing import NamedTuple

from typer.testing import CliRunner

from backfill.cli.app import app
from backfill.cli.common import explain
from declaring import declare
from preloaded import run_shell

from plugins.roles import NewRole

NOWHERE = "postgresql://nobody@127.0.0.1:1/nothing"
NIGHTLY = "0 4 * * * report ?tz=Europe/Berlin"


class Ran(NamedTuple):
    """A command that has ended."""

    code: int
    stdout: str
    stderr: str


def ran(dsn: str, *words: str) -> Ran:
    """Run a command within this process, which takes a fraction of the time; its error is shown as by the shell."""
    result = CliRunner().invoke(app, ["cron", *words, "--dsn", dsn])
    if not isinstance(result.exception, Exception):
        return Ran(result.exit_code, result.stdout, result.stderr)
    line, code = explain(result.exception)
    return Ran(code, result.stdout, f"{result.stderr}backfill: {line}\n")


def printed(dsn: str, *words: str) -> str:
    """What a command prints that does its work and has nothing to note."""
    result = ran(dsn, *words)
    assert (result.code, result.stderr) == (0, "")
    return result.stdout


def refused(dsn: str, *words: str) -> tuple[int, str]:
    """The code and the error of a command that does nothing."""
    result = ran(dsn, *words)
    assert result.stdout == ""
    return result.code, result.stderr


def test_in_a_process_of_its_own(dsn: str) -> None:
    """The shell does the same, with its exit codes and one line for an error."""
    for words, code, out, error in (
        (["add", NIGHTLY], 0, "report runs, next 2", ""),
        (["show", "raport"], 1, "", "backfill: there is no schedule 'raport'; is 'report' meant?\n"),
        (["add", "@daily"], 2, "", "backfill: line 1, column 7: nothing: expected the name of a task\n"),
    ):
        result = run_shell("cron", *words, "--dsn", dsn)
        assert (result.returncode, result.stderr) == (code, error)
        assert result.stdout.startswith(out)


def test_the_life_of_an_item(dsn: str) -> None:
    """It is added, changed, paused, resumed, triggered and removed; each command prints how it stands."""
    assert printed(dsn, "list") == "there is no recurring job: neither a worker's code nor an operator names one\n"
    assert json.loads(printed(dsn, "list", "--json")) == []
    assert printed(dsn, "add", f"{NIGHTLY} {{to: 'boss'}}", "--by", "ann").startswith("report runs, next 2")
    assert refused(dsn, "add", NIGHTLY) == (
        1, "backfill: there is a schedule 'report' already: change it, or give the new one another identifier (id=)\n",
    )  # fmt: skip
    changed = json.loads(printed(dsn, "change", "report", "@daily report", "--by", "bob", "--json"))
    assert (changed["line"], changed["origin"], changed["state"], changed["said_by"]) == (
        "0 0 * * * report", "operator", "active", "bob",
    )  # fmt: skip
    assert datetime.fromisoformat(changed["next_run"]).tzinfo is not None
    assert printed(dsn, "pause", "report", "--by", "ann") == "report is paused: 0 0 * * * report\n"
    assert json.loads(printed(dsn, "show", "report", "--json"))["paused_by"] == "ann"
    job = json.loads(printed(dsn, "trigger", "report", "--json"))
    assert job == {"identifier": "report", "id": job["id"], "task": "report"}
    assert printed(dsn, "trigger", "report") == f"added: job {job['id'] + 1} (report)\n"
    assert printed(dsn, "resume", "report").startswith("report runs, next 2")
    assert refused(dsn, "resume", "report") == (1, "backfill: schedule 'report' is not paused\n")
    code, error = refused(dsn, "reset", "report")
    assert (code, error.startswith("backfill: schedule 'report' was added by operators")) == (1, True)
    assert printed(dsn, "remove", "report") == "report is removed\n"
    assert json.loads(printed(dsn, "list", "--json")) == []
    known = "items of code are known once a worker that declares them has started"
    assert refused(dsn, "show", "report") == (1, f"backfill: there is no schedule 'report'; {known}\n")


def test_what_code_declares_is_listed(dsn: str) -> None:
    """As a table without payloads, with a note for each contradiction; `show` has everything."""
    asyncio.run(declare(dsn, "old", f"{NIGHTLY} {{to: 'boss'}}\n@hourly sync"))
    asyncio.run(declare(dsn, "new", "0 5 * * * report {to: 'boss'}"))
    result = ran(dsn, "list")
    assert result.stderr == (
        "note: live workers declare report with different lines: `backfill cron show report` has them\n"
    )
    heading, report, sync = result.stdout.splitlines()
    assert heading.split("  ")[0] == "identifier"
    assert report.startswith("report      active  the code")
    assert report.endswith("  0 5 * * * report")
    assert sync.endswith("  0 * * * * sync")
    text = printed(dsn, "show", "report")
    assert 'item               0 5 * * * report {"to":"boss"}\n' in text
    assert f'other workers say  {NIGHTLY} {{"to":"boss"}}\n' in text
    assert "text of            the code; 2 live workers declare the item\n" in text
    printed(dsn, "change", "report", NIGHTLY, "--by", "ann")
    assert 'the code says      0 5 * * * report {"to":"boss"}\n' in printed(dsn, "show", "report")
    assert " in Europe/Berlin, +0" in printed(dsn, "show", "report")
    printed(dsn, "pause", "sync", "--by", "ann")
    assert "state              paused by ann, 2" in printed(dsn, "show", "sync")
    printed(dsn, "remove", "sync", "--by", "ann")
    assert "state              removed by ann, 2" in printed(dsn, "show", "sync")
    assert printed(dsn, "reset", "sync").startswith("sync runs")
    assert refused(dsn, "reset", "sync") == (1, "backfill: operators have said nothing of schedule 'sync'\n")


def test_that_nothing_schedules_is_noted(dsn: str) -> None:
    """Where items are there and no live worker schedules."""
    asyncio.run(declare(dsn, "one", NIGHTLY, schedules=False))
    assert ran(dsn, "list").stderr == "note: no live worker schedules, so nothing runs until one starts\n"


def test_next_runs(dsn: str) -> None:
    """Of one item, of all that run, and of those that are paused, which is noted."""
    asyncio.run(declare(dsn, "one", f"{NIGHTLY}\n@hourly sync\n@hourly off"))
    printed(dsn, "pause", "off")
    first = json.loads(printed(dsn, "next", "--count", "30", "--json"))
    assert len(first) == 30
    assert {one["identifier"] for one in first} == {"report", "sync"}
    assert [one["run"] for one in first] == sorted(one["run"] for one in first)
    lines = printed(dsn, "next", "report", "--after", "2026-03-28", "--count", "3").splitlines()
    assert lines == [
        "2026-03-28 03:00:00+00:00 (2026-03-28 04:00 in Europe/Berlin, +01:00)  report",
        "2026-03-29 02:00:00+00:00 (2026-03-29 04:00 in Europe/Berlin, +02:00)  report",
        "2026-03-30 02:00:00+00:00 (2026-03-30 04:00 in Europe/Berlin, +02:00)  report",
    ]
    paused = ran(dsn, "next", "off", "--count", "1")
    assert paused.stderr == "note: off is paused, and does not run now\n"
    assert paused.stdout.endswith("  off\n")
    code, error = refused(dsn, "next", "reprot")
    assert (code, error) == (1, "backfill: there is no schedule 'reprot'; is 'report' meant?\n")


def test_next_of_nothing(dsn: str) -> None:
    """Says so."""
    assert printed(dsn, "next") == "no recurring job runs\n"


PREVIEW = """\
Europe/Berlin: clocks go from 2026-03-29 02:00 (+01:00) to 2026-03-29 03:00 (+02:00)
  Sat 2026-03-28 02:30  +01:00    2026-03-28 01:30 UTC
  Sun 2026-03-29 02:30  no clock  2026-03-29 01:00 UTC  no clock shows this time: it runs at the end of the gap \
(dst=once)
  Mon 2026-03-30 02:30  +02:00    2026-03-30 00:30 UTC
Europe/Berlin: clocks go from 2026-10-25 03:00 (+02:00) to 2026-10-25 02:00 (+01:00)
  Sat 2026-10-24 02:30  +02:00    2026-10-24 00:30 UTC
  Sun 2026-10-25 02:30  +02:00    2026-10-25 00:30 UTC  clocks show this time twice: it runs the first time
  Sun 2026-10-25 02:30  +01:00    no run                clocks show this time twice: it does not run again (dst=once)
  Mon 2026-10-26 02:30  +01:00    2026-10-26 01:30 UTC
"""


def test_preview_needs_no_database() -> None:
    """For a line, it shows the nights on which clocks change; many times with the same fate are told of briefly."""
    line = "30 2 * * * report ?tz=Europe/Berlin"
    assert printed(NOWHERE, "preview", "--line", line, "--after", "2026-01-01") == PREVIEW
    often = printed(NOWHERE, "preview", "--line", "* * * * * a ?tz=Europe/Berlin", "--count", "1").splitlines()
    assert len(often) == 1 + 3 + 4 + 3
    assert "  ... and 57 more like these" in often
    assert "it is left out (an item with a * follows the clock)" in "".join(often)
    assert printed(NOWHERE, "preview", "--line", "0 4 * * * a") == (
        "no change of clocks concerns a: the clocks of UTC stay as they are\n"
    )
    assert "every= follows no clock" in printed(NOWHERE, "preview", "--line", "* * * * * a ?every=90s")
    rare = printed(NOWHERE, "preview", "--line", "0 4 1 1 * a ?tz=Europe/Berlin", "--count", "1")
    assert rare.endswith("  it names no time on this day, on the day before or on the day after\n")
    found = json.loads(printed(NOWHERE, "preview", "--line", line, "--after", "2026-01-01T00:00:00Z", "--json"))
    assert (found["identifier"], found["timezone"], len(found["changes"])) == ("report", "Europe/Berlin", 2)
    assert [one["fate"] for one in found["changes"][0]["times"]] == ["runs", "moved", "runs"]


def test_preview_of_an_item(dsn: str) -> None:
    """By its identifier, from the database's time on."""
    asyncio.run(declare(dsn, "one", "30 2 * * * report ?tz=Europe/Berlin"))
    assert printed(dsn, "preview", "report", "--after", "2026-01-01") == PREVIEW
    assert len(printed(dsn, "preview", "report", "--count", "1").splitlines()) in (4, 5)


USAGE = [
    (["next", "report", "--line", "@daily a"], "next: give either an identifier or --line"),
    (["preview"], "preview: give either an identifier or --line"),
    (["preview", "--line", ""], "--line: one item, such as"),
    (["preview", "--line", "0 24 * * * a"], "line 1, column 3: '24': expected a number from 0 to 23 for the hour"),
    (["next", "--line", "@daily a", "--count", "0"], "--count = 0: an integer from 1 to 1000"),
    (["preview", "--line", "@daily a", "--count", "21"], "--count = 21: an integer from 1 to 20"),
    (["next", "--line", "@daily a", "--after", "soon"], "--after = 'soon': an ISO 8601 time with its zone"),
    (["next", "--line", "@daily a", "--after", "2026-01-01T04:00"], "--after = '2026-01-01T04:00': an ISO 8601"),
    (["next", "--line", "@daily a", "--after", "2026-01-011"], "--after = '2026-01-011': an ISO 8601"),
    (["add", "@daily"], "line 1, column 7: nothing: expected the name of a task"),
    (["add", "@daily a\n@daily b"], "LINE: one item, such as"),
    (["change", "a", ""], "LINE: one item, such as"),
]
ASKED = [
    (["change", "a", "@daily b ?id=c"], "identifier = 'c': 'a', which is changed"),
    (["pause", ""], "identifier = '': 1 to 128 characters"),
    (["pause", "a", "--by", ""], "by = '': 1 to 200 characters"),
]


def test_bad_usage(dsn: str) -> None:
    """Is named, and exits with 2; most of it before a database is asked."""
    for place, cases in ((NOWHERE, USAGE), (dsn, ASKED)):
        for words, message in cases:
            code, error = refused(place, *words)
            assert code == 2
            assert error.startswith(f"backfill: {message}")
            assert error.count("\n") == 1


def test_a_role_without_the_rights_is_told_how_to_get_them(dsn: str, role: NewRole) -> None:
    """A producer's role may do none of it."""
    theirs = role("producer")
    for words in (["list"], ["add", NIGHTLY], ["pause", "report"], ["trigger", "report"]):
        result = ran(theirs, *words)
        assert result.code == 1
        assert "let the owner run what `backfill migrate --grants operator --role NAME` prints" in result.stderr
