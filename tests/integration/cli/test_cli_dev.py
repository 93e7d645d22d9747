"""`backfill dev`: it serves who writes tasks, reloads in time, and loses no job by it."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from collections import Counter

import psutil
import psycopg

from plugins.developing import JOBS, Developing, add, rows, until_reloaded, until_works
from plugins.periods import between_looks, block_for
from programs import assert_nothing_left, between_signals, processes_of, wait_until_gone

RELOAD_SECONDS = 2.0
"""What is promised of a reload; the tests give it threefold room."""


def test_reloads_are_in_time_and_lose_no_job(developing: Developing) -> None:
    """Jobs arrive all the while, and the code changes five times: each job runs, none fails, and reloads are quick.

    After each reload jobs run with the newest code, also where it has the length of the code before.
    """
    program = developing.start()
    dsn = until_works(program)
    stop, added = threading.Event(), 0

    def produce() -> None:
        nonlocal added
        with psycopg.connect(dsn, autocommit=True) as connection:
            while not stop.wait(0.01):
                connection.execute("select graphile_worker.add_job('say', %s::json)", [json.dumps(str(added))])
                added += 1

    producer = threading.Thread(target=produce)
    producer.start()
    took = list[float]()
    try:
        for number in range(1, 6):
            block_for(1.0)  # somebody reads what the command says before they write again
            developing.version(f"w{number}")
            took.append(until_reloaded(program))
    finally:
        stop.set()
        producer.join()
    add(dsn, "say", "last")
    for _ in range(1000):
        if not rows(dsn, "select 1 from graphile_worker.jobs"):
            break
        between_looks()
    assert rows(dsn, "select * from graphile_worker.jobs") == []
    assert rows(dsn, "select * from graphile_worker.backfill_dlq") == []
    said = developing.said()
    assert "w5 last" in said
    runs = Counter(line.split()[1] for line in said)
    assert runs.keys() == {*(str(number) for number in range(added)), "last"}
    assert min(took) < 3 * RELOAD_SECONDS, took  # on a machine that does nothing else, all take under a second
    program.press_ctrl_c()
    assert program.end() == 0
    assert_nothing_left(developing.temp)


def test_a_job_that_still_runs_goes_back_and_runs_with_the_new_code(developing: Developing) -> None:
    """It is interrupted after the short drain, which is said, and that costs it no attempt."""
    program = developing.start()
    dsn = until_works(program)
    add(dsn, "linger")
    program.wait_for("v0 lingers")
    developing.version("v1")
    program.wait_for("1 job still ran and went back to the queue: linger")
    until_reloaded(program)
    program.wait_for("v1 lingers")
    assert rows(dsn, "select attempts from graphile_worker.jobs") == [(1,)]


def test_changes_while_a_reload_is_under_way(developing: Developing) -> None:
    """A change that comes while the new code is imported makes that import void: the newest code runs in the end."""
    program = developing.start()
    dsn = until_works(program)
    slow = JOBS.replace("v0", "v1") + "\nprint('importing', flush=True)\nimport threading\nthreading.Event().wait(60)\n"
    developing.write(slow)
    program.wait_for("importing")
    developing.version("v2")
    until_reloaded(program)
    add(dsn, "linger")
    program.wait_for("v2 lingers")


def test_what_it_prints_serves_another_terminal(developing: Developing) -> None:
    """The pasted lines enqueue a job; the tasks and the number of watched files are named."""
    developing.write("", "other.py")
    program = developing.start()
    output = program.wait_for("dev: the worker runs; it has 2 tasks: linger, say\n")
    assert f"watching 2 Python files in {developing.project}" in output
    lines = output.splitlines()
    [where] = [number for number, line in enumerate(lines) if line.endswith("paste this into another terminal:")]
    pasted = "\n".join(lines[where + 1 : where + 3]).replace("TASK '{}'", "linger")
    done = subprocess.run(
        ["env", "-i", "sh", "-c", pasted], capture_output=True, text=True, cwd="/", timeout=60, check=False
    )
    assert (done.stderr, done.stdout) == ("", "added: job 1 (linger)\n")
    program.wait_for("v0 lingers")


def test_ctrl_c_twice(developing: Developing) -> None:
    """The first lets jobs run up to the drain; the second interrupts them, and gives exit code 130."""
    program = developing.start("--drain", "1h")
    add(until_works(program), "linger")
    program.wait_for("v0 lingers")
    program.press_ctrl_c()
    program.wait_for("another Ctrl-C interrupts running jobs")
    between_signals()
    program.press_ctrl_c()
    program.wait_for("went back to the queue: linger")
    assert program.end() == 130
    assert_nothing_left(developing.temp)


def test_ctrl_c_at_any_moment_leaves_nothing(developing: Developing) -> None:
    """Ctrl-C before there is a worker, and a second one right after it, end all that was started."""
    for seconds in (0.3, 0.8, 1.3, 1.8):
        program = developing.start()
        program.watch(seconds)
        program.press_ctrl_c()
        program.press_ctrl_c()
        program.end()
        assert_nothing_left(developing.temp)


def test_a_killed_command_leaves_nothing(developing: Developing) -> None:
    """If it is killed, its worker, the worker that waits and its PostgreSQL end."""
    program = developing.start()
    until_works(program)
    workers: list[psutil.Process] = []
    for _ in range(500):  # the next worker is started, and waits
        workers = [one for one in processes_of(developing.project) if one.pid != program.process.pid]
        if len(workers) >= 2:
            break
        between_looks()
    servers = [one for one in processes_of(developing.temp) if one.pid != program.process.pid]
    assert len(workers) >= 2
    assert servers
    program.process.send_signal(signal.SIGKILL)
    wait_until_gone([*workers, *servers])
    assert_nothing_left(developing.temp)


def test_logs_as_json(developing: Developing) -> None:
    """With `--json` each line is an object, the command's own lines too."""
    program = developing.start("--json")
    program.wait_for("the worker runs")
    program.press_ctrl_c()
    assert program.end() == 0
    entries = [json.loads(line) for line in program.output.splitlines()]
    assert {"backfill.dev", "backfill.worker.events"} <= {entry["logger"] for entry in entries}
    for entry in entries:
        assert {"time", "level", "logger", "message"} <= entry.keys()
