"""The SQL that `migrate` would run, as a text, for those who let only their own tools change a database."""

from __future__ import annotations

from itertools import groupby

from psycopg import sql

from backfill.storage.schema.state import SchemaState
from backfill.storage.schema.steps import Migration, migrations, newest
from backfill.storage.statements import DEFAULT_SCHEMA, load, render_text


def migration_script(schema: str = DEFAULT_SCHEMA, state: SchemaState | None = None) -> str:
    """The SQL that brings a schema to the newest migration, for psql.

    Args:
        schema: the schema's name.
        state: what the database has; where it is None, the script is for a database without the schema, and refuses
            any other.

    Returns:
        A script that runs in transactions, except for indexes of tables in use, which it makes concurrently between
        them.

    Raises:
        ConfigurationError: the schema's name cannot be used.
    """
    if state is None or not (state.applied or state.contract_there):
        return _whole(schema)
    if not state.pending:
        return f"-- schema {schema!r} is up to date: migration {newest()}\n"
    parts = [
        f"-- backfill: schema {_comment(schema)}, migrations up to {newest()}; run it with psql -v ON_ERROR_STOP=1"
    ]
    ledger_there = state.ours_there
    for together, steps in groupby(state.pending, lambda step: step.transaction):
        body = [] if ledger_there else [_own("create_ledger", schema)]
        ledger_there = True
        for step in steps:
            skipped = step.foundation and state.foundation == "foreign"
            body += [_note(step, schema, skipped=skipped)] if skipped else _step(step, schema, concurrently=True)
        parts += ["begin;", *body, "commit;"] if together else body
    return "\n\n".join(parts) + "\n"


def _whole(schema: str) -> str:
    parts = [
        f"-- backfill: schema {_comment(schema)}, migrations 1 to {newest()}, for a database without it",
        "begin;",
        _own("refuse_existing", schema),
        _own("create_schema", schema),
        _own("create_ledger", schema),
    ]
    for step in migrations():
        parts += _step(step, schema, concurrently=False)
    return "\n\n".join([*parts, "commit;"]) + "\n"


def _step(step: Migration, schema: str, *, concurrently: bool) -> list[str]:
    text = step.sql(schema, concurrently=concurrently).strip()
    if concurrently and step.index is not None:
        # An index that an interrupted build left behind is invalid, so it is dropped first.
        index = sql.Identifier(schema, step.index).as_string(None)
        text = f"drop index concurrently if exists {index};\n{text}"
    return [f"-- migration {step.number}: {step.name}\n{text}", _note(step, schema, skipped=False)]


def _own(name: str, schema: str) -> str:
    lines = load(name).text.strip().splitlines()
    return render_text("\n".join(line for line in lines if not line.startswith("-- ")), schema) + ";"


def _note(step: Migration, schema: str, *, skipped: bool) -> str:
    row = sql.SQL(", ").join([step.number, step.name, step.breaking, skipped])
    insert = sql.SQL("insert into {} (id, name, breaking, skipped) values ({});")
    return insert.format(sql.Identifier(schema, "backfill_migrations"), row).as_string(None)


def _comment(schema: str) -> str:
    return repr(schema)
