"""Node's side: graphile-worker in one process, as fast as it is configured to be."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from urllib.parse import quote

from psycopg.conninfo import conninfo_to_dict

PROGRAM = Path(__file__).with_name("node_worker.mjs")


def node_rate(dsn: str, jobs: int, node_modules: Path, *, warming: int = 0) -> float:
    """Jobs a second, from the first job's begin until the table is empty; so many more ran before it."""
    command = [*node_command(PROGRAM, node_modules), as_url(dsn), str(jobs), str(warming)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    seconds = float(json.loads(done.stdout.strip().splitlines()[-1])["seconds"])
    return jobs / seconds


def node_command(program: Path, node_modules: Path) -> list[str]:
    """What runs a program that finds its modules: its copy beside them."""
    copy = node_modules.parent / program.name
    shutil.copy(program, copy)
    return ["node", str(copy)]


def as_url(dsn: str) -> str:
    """The DSN as the drivers of Node and Rust read it."""
    given = conninfo_to_dict(dsn)
    fields = {name: quote(str(given.get(name) or ""), safe="") for name in ("user", "password", "dbname", "port")}
    login = f"{fields['user']}:{fields['password']}" if fields["password"] else fields["user"]
    host = str(given.get("host") or "localhost")
    if host.startswith("/"):
        return f"postgresql://{login}@localhost:{fields['port']}/{fields['dbname']}?host={quote(host, safe='')}"
    return f"postgresql://{login}@{host}:{fields['port']}/{fields['dbname']}"
