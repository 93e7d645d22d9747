"""The statements of claims for workers that take only jobs with certain flags.

Used by the kinds of claims (`claims`, `shares`, `value_claims`). A worker that was told no such flags has the
statements as they stand in sql/, so it pays nothing for this.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from backfill._native import claim_statement
from backfill.storage.arrays import text_array
from backfill.storage.texts import PARTS

Shapes = Sequence[tuple[bool, bool, bool]]
_MARKER: Final = re.compile(r"^( *)-- lane: ", re.MULTILINE)
"""Where a statement has the filters of lanes; the jobs are in scope there."""
_NUMBER: Final = "$0"


def lane_statement(template: str, schema: str, lanes: Shapes, first: int, accepted_flags: Sequence[str]) -> str:
    """The text of a claim's statement for a lane, as `claim_statement` makes it.

    Args:
        template: the statement's text.
        schema: the quoted name of the schema.
        lanes: which filters the lanes have.
        first: the number of the first parameter that is not the template's own. Where flags are given it is theirs, and
            those of the lanes come behind it.
        accepted_flags: only jobs with one of these flags are taken; any job if there are none.
    """
    if not accepted_flags:
        return claim_statement(template, schema, lanes, first)
    condition = PARTS["accepted_flags"].strip().replace(_NUMBER, f"${first}")
    template = _MARKER.sub(lambda marker: _indented(condition, marker[1]) + marker[0], template)
    return claim_statement(template, schema, lanes, first + 1)


def flag_parameters(accepted_flags: Sequence[str]) -> tuple[str, ...]:
    """The parameters that `lane_statement` has added for these flags."""
    return (text_array(accepted_flags),) if accepted_flags else ()


def _indented(lines: str, indent: str) -> str:
    return "".join(f"{indent}{line}\n" for line in lines.splitlines())
