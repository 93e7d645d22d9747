"""The DSN's word for prepared statements behind a pooler: found in either form of a DSN, and taken out for libpq."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from backfill.errors import ConfigurationError
from backfill.storage.connection import complete, redacted
from backfill.storage.pooler import LIBPQ_THAT_CLOSES, OPTION, Way, way_of, without_option

ON = f"{OPTION}=on"


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        (f"postgresql://u@h/d?{ON}", "postgresql://u@h/d"),
        (f"postgresql://u@h/d?{ON}&sslmode=require", "postgresql://u@h/d?sslmode=require"),
        (f"postgresql://u@h/d?sslmode=require&{ON}", "postgresql://u@h/d?sslmode=require"),
        (f"postgresql://u@h/d?sslmode=require&{ON}&port=1", "postgresql://u@h/d?sslmode=require&port=1"),
        (ON, ""),
        (f"{ON} host=h", "host=h"),
        (f"host=h {ON} dbname=d", "host=h dbname=d"),
        (f"host=h {OPTION} = 'on'", "host=h"),
    ],
)
def test_it_is_found_and_taken_out(text: str, rest: str) -> None:
    """Wherever it stands, what is left means the same as if it had never been there."""
    left, wanted = without_option(text)
    assert wanted
    assert conninfo_to_dict(left) == conninfo_to_dict(rest)
    assert conninfo_to_dict(complete(text, application_name="a")) == conninfo_to_dict(
        complete(rest, application_name="a")
    )
    assert redacted(text) == redacted(rest)


def test_off_is_off() -> None:
    """It can be said, and means what it means without."""
    assert without_option(f"host=h {OPTION}=off")[1] is False


@pytest.mark.parametrize("word", ["", "yes", "ON", "1"])
def test_another_word_is_refused(word: str) -> None:
    """Neither on nor off: an error names the option, the value and what is expected."""
    with pytest.raises(ConfigurationError, match=f"{OPTION} = {word!r}: expected on or off"):
        without_option(f"postgresql://h/d?{OPTION}={word}")


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"])))
def test_a_password_is_left_alone(word: str) -> None:
    """Where a DSN can be read as it is, nothing is taken from it, whatever its values say."""
    for password in (word, f"{word} {ON}", f"{ON}&{word}"):
        dsn = make_conninfo(host="h", password=password)
        assert without_option(dsn) == (dsn, False)


@pytest.mark.parametrize("wanted", [False, True])
@pytest.mark.parametrize("libpq", [LIBPQ_THAT_CLOSES - 1, LIBPQ_THAT_CLOSES, LIBPQ_THAT_CLOSES + 10000])
def test_who_prepares(wanted: bool, libpq: int) -> None:
    """A direct connection prepares; one through a pooler only if both libpq and the DSN say so."""
    assert way_of(pooled=False, wanted=wanted, libpq=libpq) is Way.DIRECT
    prepares = way_of(pooled=True, wanted=wanted, libpq=libpq) is Way.PREPARING
    assert prepares == (wanted and libpq >= LIBPQ_THAT_CLOSES)
