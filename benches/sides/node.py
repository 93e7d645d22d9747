"""Node's side: graphile-worker in one process, as fast as it is configured to be."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from urllib.parse import quote

from psycopg.conninfo import conninfo_to_dict

PROGRAM = Path(__file__).with_name("node_worker.mjs")


def node_rate(dsn: str, jobs: int, node_modules: Path) -> float:
    """Jobs a second, from the worker's start until the table is empty."""
    program = node_modules.parent / PROGRAM.name
    shutil.copy(PROGRAM, program)
    done = subprocess.run(
        ["node", str(program), _url(dsn), str(jobs)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    seconds = float(json.loads(done.stdout.strip().splitlines()[-1])["seconds"])
    return jobs / seconds


def _url(dsn: str) -> str:
    """The DSN as Node's driver reads it."""
    given = conninfo_to_dict(dsn)
    fields = {name: quote(str(given.get(name) or ""), safe="") for name in ("user", "password", "dbname", "port")}
    login = f"{fields['user']}:{fields['password']}" if fields["password"] else fields["user"]
    host = str(given.get("host") or "localhost")
    if host.startswith("/"):
        return f"postgresql://{login}@localhost:{fields['port']}/{fields['dbname']}?host={quote(host, safe='')}"
    return f"postgresql://{login}@{host}:{fields['port']}/{fields['dbname']}"
