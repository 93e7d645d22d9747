"""The grants and policies of a role that owns nothing: what `backfill migrate --grants` prints."""

from __future__ import annotations

import hashlib
from typing import Final, Literal, get_args

from psycopg import sql

from backfill.errors import ConfigurationError
from backfill.storage.statements import DEFAULT_SCHEMA, quoted_schema
from backfill.storage.texts import GRANTS

Duty = Literal["producer", "worker"]
_JOBS_SEQUENCE: Final = "jobs_id_seq1"
_IDENTIFIER_BYTES: Final = 63


def grants_script(duty: Duty, role: str, schema: str = DEFAULT_SCHEMA) -> str:
    """The SQL that lets a role enqueue jobs (`producer`) or work (`worker`), and nothing more; it can be run again.

    The tables have row level security, so grants alone show a role no rows: each table gets a policy for the role, named
    after it.

    Raises:
        ConfigurationError: an unknown duty, or a name that cannot be used.
    """
    if duty not in get_args(Duty):
        raise ConfigurationError(f"grants = {duty!r}: expected one of {', '.join(get_args(Duty))}")
    if not 1 <= len(role.encode("utf-8", "replace")) <= _IDENTIFIER_BYTES or "\0" in role:
        raise ConfigurationError(f"role = {role!r}: a name of 1 to {_IDENTIFIER_BYTES} bytes without NUL")
    names = {
        ':"schema"': quoted_schema(schema),
        ':"role"': _quoted(role),
        ':"policy"': _quoted(_policy(duty, role)),
        ':"held"': _quoted(_policy(f"held_{duty}", role)),
        ':"sequence"': sql.Identifier(schema, _JOBS_SEQUENCE).as_string(None),
    }
    pieces = GRANTS[duty].split(':"')
    filled = pieces[0]
    for piece in pieces[1:]:  # token by token: a name may itself look like one
        token, rest = piece.split('"', 1)
        filled += names[f':"{token}"'] + rest
    return f"begin;\n{filled}commit;\n"


def _policy(duty: str, role: str) -> str:
    name = f"backfill_{duty}_{role}"
    if len(name.encode()) <= _IDENTIFIER_BYTES:
        return name
    return f"backfill_{duty}_{hashlib.sha256(role.encode()).hexdigest()[:16]}"


def _quoted(name: str) -> str:
    return sql.Identifier(name).as_string(None)
