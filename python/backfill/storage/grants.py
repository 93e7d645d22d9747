"""The grants and policies of a role that owns nothing: what `backfill migrate --grants` prints."""

from __future__ import annotations

import hashlib
import re
from typing import Final, Literal, get_args

from psycopg import sql

from backfill.errors import ConfigurationError
from backfill.storage.statements import DEFAULT_SCHEMA, quoted_schema
from backfill.storage.texts import GRANTS

Duty = Literal["producer", "worker", "operator"]
_JOBS_SEQUENCE: Final = "jobs_id_seq1"
_JOBS_TABLE: Final = "_private_jobs"
_CONTROL_TABLE: Final = "backfill_control"
_TOKEN: Final = re.compile(r""":"\w+"|:'\w+'""")
_IDENTIFIER_BYTES: Final = 63


def grants_script(duty: Duty, role: str, schema: str = DEFAULT_SCHEMA) -> str:
    """The SQL that lets a role do one duty, and nothing more.

    A `producer` enqueues jobs, a `worker` works, and an `operator` says to the fleet what may run.

    The script can be run again; it then takes back what the scripts of older versions granted beyond that. A producer
    may call functions, and has no right on any table of the queue. The tables have row level security, so a role with
    grants alone sees no rows: for a worker each table gets a policy, named after the role, and for an operator each
    table that it may read. A role may have the grants of several duties.

    Raises:
        ConfigurationError: the duty is unknown, or a name cannot be used.
    """
    if duty not in get_args(Duty):
        raise ConfigurationError(f"grants = {duty!r}: expected one of {', '.join(get_args(Duty))}")
    if not 1 <= len(role.encode("utf-8", "replace")) <= _IDENTIFIER_BYTES or "\0" in role:
        raise ConfigurationError(f"role = {role!r}: a name of 1 to {_IDENTIFIER_BYTES} bytes without NUL")
    values = {
        ':"schema"': quoted_schema(schema),
        ':"role"': _quoted(role),
        ':"policy"': _quoted(_policy(duty, role)),
        ':"held"': _quoted(_policy(f"held_{duty}", role)),
        ':"sequence"': _quoted(schema, _JOBS_SEQUENCE),
        ":'worker_policy'": _literal(_policy("worker", role)),
        ":'jobs'": _literal(_quoted(schema, _JOBS_TABLE)),
        ":'operator_policy'": _literal(_policy("operator", role)),
        ":'control'": _literal(_quoted(schema, _CONTROL_TABLE)),
    }
    body = "$body$"
    while any(body in value for value in values.values()):  # no name may end the script's own quotes
        body = f"$x{body[1:]}"
    # All tokens are replaced in one pass, since a name may itself look like a token.
    filled = _TOKEN.sub(lambda token: values[token[0]], GRANTS[duty].replace("$body$", body))
    return f"begin;\n{filled}commit;\n"


def _policy(duty: str, role: str) -> str:
    name = f"backfill_{duty}_{role}"
    if len(name.encode()) <= _IDENTIFIER_BYTES:
        return name
    return f"backfill_{duty}_{hashlib.sha256(role.encode()).hexdigest()[:16]}"


def _quoted(*names: str) -> str:
    return sql.Identifier(*names).as_string(None)


def _literal(text: str) -> str:
    return sql.Literal(text).as_string(None)
